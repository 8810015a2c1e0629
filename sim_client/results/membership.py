"""The processes that work on one list of episodes, and which of them each has on lease.

A member is alive as long as it holds the lock on its own file. The kernel releases it when the process ends, however
it ends: nobody looks at a clock or waits for a heartbeat. These locks (flock) hold between the processes and containers
of one machine, and between machines over NFSv4, unless it is mounted with `local_lock`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from sim_client.errors import RecordsError
from sim_client.files import LOCK, locked

__all__ = ["MEMBERS", "Membership", "Standing", "living_members"]

MEMBERS = "members"
"""Folder of the members' files in a results directory; one is `<host>-<process>-<random>.lock`."""

_PATIENCE_S = 60.0
"""The list is locked for milliseconds at a time. Who waits for so long waits for a process or a disk that hangs."""


@dataclass(frozen=True)
class Standing:
    """What a member's file says."""

    since: int
    """Records that were there before the members began: errors among them are run again, later ones are not."""
    leases: frozenset[int] = frozenset()
    """Places in the run's list of the episodes that the member is at."""


class Membership:
    """This process among those that share the list in `directory`.

    Attributes:
        name: no other process's, nor container's.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._folder = directory, directory / MEMBERS
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
        self._path = self._folder / f"{self.name}.lock"
        self._file: IO[str] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else reads or changes the list during the block.

        Raises:
            RecordsError: another process keeps it, or the file system has no locks.
        """
        with ExitStack() as stack:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self._folder / LOCK, _PATIENCE_S))
            except OSError as error:
                raise _not_locked(self._directory, error) from error
            yield

    def others(self) -> Mapping[str, Standing]:
        """Name -> standing of the other living members. What dead ones left is deleted; only while `locked`."""
        standings = {}
        for path in _files(self._directory):
            if path == self._path:
                continue
            with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:  # it may be leaving
                if _is_dead(file):
                    path.unlink()
                elif (standing := _read(file)) is not None:
                    standings[path.stem] = standing
        return standings

    def write(self, standing: Standing) -> None:
        """Join, or tell the others what is new; only while `locked`. Raises `RecordsError`."""
        try:
            if self._file is None:
                self._file = self._path.open("x", encoding="utf-8")
                fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.seek(0)
            self._file.truncate()
            json.dump({"since": standing.since, "leases": sorted(standing.leases)}, self._file)
            self._file.flush()
            os.fsync(self._file.fileno())  # over NFS, the others see it from here on
        except OSError as error:
            raise RecordsError(f"{self._path} cannot be written: {error.strerror or error}.") from error

    def leave(self) -> None:
        """Make this member's leases free."""
        if self._file is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            with suppress(OSError):  # of a full disk, which has been told
                self._file.close()
            self._file = None


def living_members(directory: Path) -> tuple[str, ...]:
    """Names of the processes that share the list in `directory`."""
    names = []
    for path in _files(directory):
        with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
            if not _is_dead(file):
                names.append(path.stem)
    return tuple(names)


def _not_locked(directory: Path, error: OSError) -> RecordsError:
    if isinstance(error, TimeoutError):
        return RecordsError(
            f"The list of episodes in {directory} is locked for more than {_PATIENCE_S:.0f} s, where milliseconds are "
            "usual: a process that shares it was stopped, or its disk hangs. End that process, or pass another --out."
        )
    return RecordsError(
        f"The list of episodes in {directory} cannot be locked: {error.strerror or error}. --share needs a folder that "
        "can be written, on a file system with locks, such as a local disk or NFSv4."
    )


def _files(directory: Path) -> list[Path]:
    return sorted((directory / MEMBERS).glob("?*.lock"))


def _is_dead(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: IO[str]) -> Standing | None:
    """None where the member could not write it, for its disk is full: it is about to end."""
    try:
        content = json.load(file)
    except ValueError:
        return None
    return Standing(content["since"], frozenset(content["leases"]))
