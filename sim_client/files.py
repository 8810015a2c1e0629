"""Files that are never half written, and folders that belong to one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["LOCK", "FolderInUse", "is_draft", "lock_folder", "replacing"]

LOCK = ".lock"
"""Name of the file that a locked folder holds; it names the process that had the lock last."""

_DRAFT = ".draft"


class FolderInUse(Exception):
    """Another process, whose id is `owner`, has the lock."""

    def __init__(self, owner: str) -> None:
        super().__init__(f"locked by process {owner}")
        self.owner = owner


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft to write that becomes `path` when the block ends well, and vanishes when it does not.

    The process id keeps two writers of the same file apart: one of a killed run may still be at it.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}{_DRAFT}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def is_draft(path: Path) -> bool:
    """Whether `path` is what a process that was killed inside `replacing` left."""
    return path.name.startswith(".") and path.suffix == _DRAFT


def lock_folder(folder: Path) -> IO[str]:
    """Make `folder` if need be and lock it until the returned file is closed or this process ends, however it ends.

    Raises:
        FolderInUse: another process has the lock.
        OSError: the folder cannot be made or written.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / LOCK).open("a+", encoding="utf-8")
        except FileNotFoundError:
            if folder.is_dir():
                raise
            continue  # the process before deleted the folder
        _take(lock)
        if (folder / LOCK).exists() and os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat()):
            return lock
        lock.close()  # the process before deleted this very lock


def _take(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise FolderInUse(owner) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
