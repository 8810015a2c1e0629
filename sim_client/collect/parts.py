"""What a running collection has so far: one file per finished seed, each written at once, in `<out>.parts/`.

SIGKILL at any moment loses the seeds in flight and nothing else.

    request.json       the request
    simulator.json     cameras, action bounds and state, as the first worker found them
    seed_<n>.h5        the demonstration of seed n
    seed_<n>.failed    the reason why seed n has none
    worker_<k>.log     what the simulator and the planner printed
    lock               held while a collection runs
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeVar

import h5py

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json, to_json
from sim_client.collect.request import CollectionRequest, require_same
from sim_client.errors import CollectionError

__all__ = ["Parts", "SimulatorDescription"]

T = TypeVar("T")


@dataclass(frozen=True)
class SimulatorDescription:
    """What only a running simulator knows about itself."""

    cameras: tuple[str, ...]
    """Names, in ManiSkill's order."""
    action_low: tuple[float, ...]
    """Lower bounds."""
    action_high: tuple[float, ...]
    """Upper bounds."""
    state_sources: Mapping[str, int]
    """Width of each source."""


class Parts:
    """The folder of a collection that is not finished yet.

    Args:
        out: the trajectory file that is being collected.
    """

    def __init__(self, out: Path) -> None:
        self.directory = out.with_name(f"{out.name}.parts")
        self._out = out
        self._lock: IO[str] | None = None

    def open(self, request: CollectionRequest) -> None:
        """Begin, or go on with what an earlier run of the same request left.

        Raises:
            CollectionError: another process is at it, or an earlier run was asked for something else.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        found = self._read("request.json", CollectionRequest)
        if found is not None:  # fewer episodes than last time are fine while nothing is finished
            require_same(replace(found, episodes=request.episodes), request, self._out)
        self._write("request.json", request)

    def close(self) -> None:
        """Let another process in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def remove(self) -> None:
        """Delete the folder: the demonstrations are in their file, or not wanted."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def episode_path(self, seed: int) -> Path:
        """Where the demonstration of `seed` belongs."""
        return self.directory / f"seed_{seed}.h5"

    def fail(self, seed: int, reason: str) -> None:
        """Note that `seed` has no demonstration."""
        path = self.directory / f"seed_{seed}.failed"
        partial = path.with_suffix(".failed.partial")
        partial.write_text(reason, encoding="utf-8")
        partial.replace(path)

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
        return self._read("simulator.json", SimulatorDescription)

    @description.setter
    def description(self, description: SimulatorDescription) -> None:
        self._write("simulator.json", description)

    def _take_lock(self) -> None:
        self._lock = (self.directory / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise CollectionError(
                f"Another process is collecting {self._out}. Wait for it, or pass another --out."
            ) from error

    def _write(self, name: str, value: object) -> None:
        partial = self.directory / f"{name}.partial"
        partial.write_text(json.dumps(to_json(value), indent=2) + "\n", encoding="utf-8")
        partial.replace(self.directory / name)

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
