"""The folder for results, found usable before anything starts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from eval_stack.errors import OutputUnwritable

__all__ = ["make_output", "require_possible"]


def require_possible(out: Path) -> None:
    """See, without writing, whether `out` can be made and written to.

    Raises:
        OutputUnwritable: it cannot.
    """
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    if not there.is_dir():
        raise OutputUnwritable(f"--out {out} cannot be used: {there} is a file. Pass --out with a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(out, f"{there} may not be written by this user")


def make_output(out: Path, names: tuple[str, ...]) -> None:
    """Make `out` and in it a folder for each checkpoint, and write to each once.

    Made here and not by the engine, which would make them as root. What root makes gets the owner of the folder around
    it, as whom the containers will run.

    Raises:
        OutputUnwritable: one of them cannot be made or written.
    """
    require_possible(out)
    for folder in (out, *(out / name for name in names)):
        try:
            _make(folder)
            with tempfile.NamedTemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise _unwritable(out, f"{folder}: {error.strerror}") from error


def _make(folder: Path) -> None:
    if folder.exists():
        return
    _make(folder.parent)
    folder.mkdir()
    if os.getuid() == 0:
        around = folder.parent.stat()
        os.chown(folder, around.st_uid, around.st_gid)


def _unwritable(out: Path, reason: str) -> OutputUnwritable:
    return OutputUnwritable(f"--out {out} cannot be written: {reason}. Pass --out with a folder that can.")
