"""Files that are never half written, and folders that belong to one process at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

__all__ = ["LOCK", "FolderInUse", "is_draft", "lock_folder", "locked", "replacing"]

LOCK = ".lock"
"""Name of the file that a locked folder holds; it names the process that had the lock last."""

_DRAFT = ".draft"

_PAUSE_S = 0.02
"""From one try at a lock to the next: over NFS the kernel's own waiting may sleep for half a minute."""


class FolderInUse(Exception):
    """Another process, whose id is `owner`, has the lock."""

    def __init__(self, owner: str) -> None:
        super().__init__(f"locked by process {owner}")
        self.owner = owner


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft to write that becomes `path` when the block ends well, and vanishes when it does not.

    Two writers of the same file never meet in one draft. A process id would not keep them apart: in two containers it
    is the same.
    """
    draft = path.with_name(f".{path.name}.{uuid4().hex}{_DRAFT}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def is_draft(path: Path) -> bool:
    """Whether `path` is what a process that was killed inside `replacing` left."""
    return path.name.startswith(".") and path.suffix == _DRAFT


@contextmanager
def locked(path: Path, patience_s: float) -> Iterator[None]:
    """Have the file `path`, made if need be, to oneself during the block. Not to be entered twice.

    Raises:
        TimeoutError: another process keeps it for longer than `patience_s`.
        OSError: the file cannot be opened, or its file system has no locks.
    """
    with path.open("a", encoding="utf-8") as lock:
        end = time.monotonic() + patience_s
        while not _get(lock, fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise TimeoutError(f"{path} stays locked")
            time.sleep(_PAUSE_S)
        yield


def lock_folder(folder: Path, *, shared: bool = False) -> IO[str]:
    """Make `folder` if need be and lock it until the returned file is closed or this process ends, however it ends.

    Args:
        shared: together with others that lock it so; only against those that do not.

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
        _take(lock, shared)
        if (folder / LOCK).exists() and os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat()):
            return lock
        lock.close()  # the process before deleted this very lock


def _take(lock: IO[str], shared: bool) -> None:
    if not _get(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise FolderInUse(owner)
    if not shared:
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()


def _get(file: IO[str], kind: int) -> bool:
    """Lock an open file; False when another process has it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
