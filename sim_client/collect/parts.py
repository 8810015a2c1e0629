"""What a running collection has so far: one file per finished seed, each written at once, in `<out>.parts/`.

SIGKILL at any moment loses the seeds in flight and nothing else.

    request.json       the request
    versions.json      of the packages that decide what is recorded
    simulator.json     cameras, action bounds and state, as the first worker found them
    seed_<n>.h5        the demonstration of seed n
    seed_<n>.failed    the reason why seed n has none
    worker_<k>.log     what the simulator and the planner printed
    .lock              held while a collection runs
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeVar

import h5py

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json, to_json
from sim_client.collect.request import CollectionRequest, require_same, require_same_versions
from sim_client.errors import CollectionError
from sim_client.files import LOCK, FolderInUse, lock_folder, replacing
from sim_client.simulator import SimulatorDescription
from sim_client.versions import installed_versions

__all__ = ["Parts"]

T = TypeVar("T")

_REQUEST, _SIMULATOR, _VERSIONS = "request.json", "simulator.json", "versions.json"


@dataclass(frozen=True)
class _Versions:
    packages: Mapping[str, str]


class Parts:
    """The folder of a collection that is not finished yet.

    Args:
        out: the trajectory file that is being collected.
    """

    def __init__(self, out: Path) -> None:
        self.directory = out.with_name(f"{out.name}.parts")
        self._out = out
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Keep other processes out until `close`.

        Raises:
            CollectionError: another process is collecting the same file.
        """
        try:
            self._lock = lock_folder(self.directory)
        except FolderInUse as error:
            raise CollectionError(
                f"Another process (id {error.owner}) is collecting {self._out}. Wait for it, or pass another --out."
            ) from error

    @property
    def begun(self) -> bool:
        """Whether an earlier run left something to go on with."""
        return (self.directory / _REQUEST).exists()

    def open(self, request: CollectionRequest) -> None:
        """Begin, or go on with what an earlier run of the same request left.

        Raises:
            CollectionError: an earlier run was asked for something else, or ran under other versions.
        """
        now = _Versions(installed_versions())
        before = self._read(_VERSIONS, _Versions) or now
        require_same_versions(before.packages, now.packages, self._out)
        found = self._read(_REQUEST, CollectionRequest)
        if found is not None:  # fewer episodes than last time are fine while nothing is finished
            require_same(replace(found, episodes=request.episodes), request, self._out)
        self._write(_VERSIONS, now)
        self._write(_REQUEST, request)

    def close(self) -> None:
        """Let another process in; a folder that holds nothing is deleted."""
        if self._lock is None:
            return
        if not any(path.name != LOCK for path in self._content()):
            shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()
        self._lock = None

    def clear(self) -> None:
        """Delete everything but the lock: the demonstrations are in their file, or not wanted."""
        for path in self._content():
            if path.name != LOCK:
                path.unlink()

    def episode_path(self, seed: int) -> Path:
        """Where the demonstration of `seed` belongs."""
        return self.directory / f"seed_{seed}.h5"

    def fail(self, seed: int, reason: str) -> None:
        """Note that `seed` has no demonstration."""
        with replacing(self.directory / f"seed_{seed}.failed") as draft:
            draft.write_text(reason, encoding="utf-8")

    def outcomes(self) -> dict[int, str | None]:
        """Every finished seed: None for a demonstration, else the reason why there is none.

        A demonstration that cannot be opened, as a full disk leaves it, is deleted and so collected again.
        """
        found: dict[int, str | None] = {}
        for path in self.directory.glob("seed_*.failed"):
            found[_seed(path)] = path.read_text(encoding="utf-8")
        for path in self.directory.glob("seed_*.h5"):
            if h5py.is_hdf5(path):
                found[_seed(path)] = None
            else:
                path.unlink()
        return found

    @property
    def description(self) -> SimulatorDescription | None:
        """The simulator, once a worker has started."""
        return self._read(_SIMULATOR, SimulatorDescription)

    @description.setter
    def description(self, description: SimulatorDescription) -> None:
        self._write(_SIMULATOR, description)

    def _content(self) -> tuple[Path, ...]:
        return tuple(self.directory.iterdir()) if self.directory.exists() else ()

    def _write(self, name: str, value: object) -> None:
        with replacing(self.directory / name) as draft:
            draft.write_text(json.dumps(to_json(value), indent=2) + "\n", encoding="utf-8")

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.directory / name
        if not path.exists():
            return None
        try:
            return from_json(kind, json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, SpecInvalid) as error:
            raise CollectionError(f"{path} is damaged ({error}). Pass --overwrite to collect anew.") from error


def _seed(path: Path) -> int:
    return int(path.stem.removeprefix("seed_"))
