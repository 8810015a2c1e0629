"""Programs kept as they were traced: what Python takes a second for, a start with a warm cache reads in no time.

What is kept is `jax.export`'s format (StableHLO in a flatbuffer), so reading it runs nothing. It is only ever read by
the version that wrote it, which its name says. XLA's part, the executable, is in jax's own cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.stages import Lowered

from training.pi05.compile_cache import is_keeping, stop_keeping, takes_no_more
from training.pi05.program_key import is_code_as_imported

__all__ = ["lowered_program"]

log = logging.getLogger(__name__)

_HEADER = b"chunkwire traced program 1\n"
_DIGEST_BYTES = 32


def lowered_program(
    function: Callable[..., Any], arguments: tuple[Any, ...], name: str, path: Path | None, donate: int
) -> Lowered:
    """`function`, jitted and lowered for arguments of these shapes, as an earlier start traced it if there was one.

    What cannot be kept is traced at every start: nothing is lost but time.

    Args:
        function: of arrays and trees of them, without side effects.
        name: under which it is compiled.
        path: where it is kept, named after everything that it depends on, see `program_key`; None keeps it nowhere.
        donate: number of the argument whose memory the result takes.
    """
    if path is not None and is_code_as_imported():
        try:
            kept = _kept(function, arguments, path)
            return _jitted(lambda *given: kept.call(jax.tree.leaves(given)), name, donate).lower(*arguments)
        except Exception as error:  # jax refuses what it could not read again, such as a kernel of one release
            reason = (str(error).strip().splitlines() or [""])[0]
            log.info("a program is not kept as it was traced (%s: %s)", type(error).__name__, reason)
    return _jitted(function, name, donate).lower(*arguments)


def _jitted(function: Callable[..., Any], name: str, donate: int) -> Any:
    def named(*arguments: Any) -> Any:
        return function(*arguments)

    named.__name__ = name
    return jax.jit(named, donate_argnums=donate)


def _kept(function: Callable[..., Any], arguments: tuple[Any, ...], path: Path) -> export.Exported:
    """From the file, or traced and put there."""
    if (kept := _read(path)) is not None:
        return kept
    leaves, structure = jax.tree.flatten(arguments)

    def flat(leaves: list[Any]) -> Any:
        return function(*jax.tree.unflatten(structure, leaves))

    traced = export.export(jax.jit(flat))(leaves)
    _write(path, bytes(traced.serialize()))
    return traced


def _read(path: Path) -> export.Exported | None:
    """None when there is none, or one that is damaged."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    content = kept[len(_HEADER) + _DIGEST_BYTES :]
    if kept != _sealed(path, content):
        log.warning("%s is damaged; it is traced anew", path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # what is used is deleted last
    return export.deserialize(bytearray(content))


def _write(path: Path, content: bytes) -> None:
    """As a whole or not at all, also beside another server that does the same."""
    if not is_keeping() or not is_code_as_imported():
        return
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # a name of its own also beside a server of another container, which has the same process number
        opened, partial = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(opened, "wb") as file:
                file.write(_sealed(path, content))
            os.replace(partial, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise
    except OSError as error:
        if takes_no_more(error):
            stop_keeping(error, path.parent.parent)
        else:
            log.warning("%s could not be written (%s); the next start traces it again", path, error.strerror or error)


def _sealed(path: Path, content: bytes) -> bytes:
    """With a digest of the content and of the name that it was written under."""
    return _HEADER + hashlib.sha256(path.name.encode() + b"\n" + content).digest() + content
