"""What is kept of an episode: one line of JSON, on disk before the next episode begins."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json, to_json
from sim_client.episode.drift import CameraStatistics
from sim_client.errors import RecordsError

__all__ = [
    "EpisodeFile",
    "EpisodeRecord",
    "Outcome",
    "Provenance",
    "WallTime",
    "final_records",
    "read_records",
]

Outcome = Literal["success", "failure", "timeout", "error"]
"""Succeeded at least once; the task declared it failed; the limit came first; the infrastructure broke."""


@dataclass(frozen=True)
class WallTime:
    """Where the seconds of an episode went."""

    simulate_s: float = 0.0
    """Resetting and stepping physics."""
    render_s: float = 0.0
    """Rendering the observations that were sent."""
    wait_s: float = 0.0
    """Waiting for the policy, the network included."""
    total_s: float = 0.0


@dataclass(frozen=True)
class Provenance:
    """What an episode's numbers are numbers of; the same in every record of a run."""

    checkpoint: str
    """`<experiment>/<run>/<step>`."""
    spec_hash: str
    run_seed: int
    """Base of the policy's noise seeds."""
    versions: Mapping[str, str]
    overrides: Mapping[str, str]
    """Flag -> value of what was not left to the policy's spec."""
    allowed_mismatches: tuple[str, ...]
    """Spec fields in which the simulation differs from training."""


@dataclass(frozen=True)
class EpisodeRecord:
    """One line of `episodes.jsonl`."""

    index: int
    """Place in the run's list of episodes, from 0."""
    seed: int
    env_id: str
    outcome: Outcome
    success_once: bool
    """The task reported success at one step at least."""
    success_at_end: bool
    """The task reported success at the last step that was run."""
    steps: int
    provenance: Provenance
    first_success: int | None = None
    """Step (from 1) of the first success."""
    chunks: int = 0
    wall: WallTime = field(default_factory=WallTime)
    stages: Mapping[str, int | None] = field(default_factory=dict)
    """Flag that the task reports -> first step (from 1) at which it turned true, None for never. A flag that holds
    from the start, as that of a cube which rests until it is touched, counts only after it was false."""
    clipped_share: float = 0.0
    """Share of action numbers that lay outside the controller's bounds."""
    state_outside_share: float | None = None
    """Share of state numbers outside the training q01 to q99."""
    cameras: Mapping[str, CameraStatistics] = field(default_factory=dict)
    round_trip_ms: tuple[float, ...] = ()
    """Client-measured time of each request."""
    infer_ms: tuple[float, ...] = ()
    """Device time of each request, as the server reports it."""
    action_hash: str = ""
    """Of the executed actions: two runs with the same hash did the same."""
    attempts: int = 1
    """How often the episode was begun, infrastructure errors included."""
    lost_s: float = 0.0
    """Seconds that went into attempts that are void, and into waiting before another one."""
    error: str = ""
    """Code and message of the infrastructure error, for the outcome `error`."""
    finished_at: str = ""
    """UTC, ISO 8601."""

    def to_line(self) -> str:
        """One line of JSON without its line end."""
        return json.dumps(to_json(self), allow_nan=False, separators=(",", ":"))


def read_records(path: Path) -> tuple[EpisodeRecord, ...]:
    """Every complete line of `path`, in the order of writing; none if there is no such file.

    A last line without its end is what a killed process leaves: it is passed over.

    Raises:
        RecordsError: a complete line is no record; names the line.
    """
    if not path.exists():
        return ()
    lines = path.read_bytes().split(b"\n")[:-1]
    return tuple(_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1))


def final_records(records: Iterable[EpisodeRecord]) -> tuple[EpisodeRecord, ...]:
    """One record per seed, ordered by index: the first that is no error, else the last error."""
    final: dict[int, EpisodeRecord] = {}
    for record in records:
        if record.seed not in final or final[record.seed].outcome == "error":
            final[record.seed] = record
    return tuple(sorted(final.values(), key=lambda record: record.index))


class EpisodeFile:
    """Appends records to `episodes.jsonl`; each one is on the disk when `append` returns.

    Opening it cuts off a half-written last line; that episode is run again.

    Raises:
        RecordsError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
            _cut_half_line(path)
        except OSError as error:
            raise RecordsError(f"{path} cannot be written: {error.strerror or error}.") from error

    def append(self, record: EpisodeRecord) -> None:
        """Write one line and wait until it is stored.

        Raises:
            RecordsError: the disk is full or failing; the lines before are kept whole.
        """
        line = record.to_line().encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(28, "no space left on device")
            os.fsync(self._file.fileno())
        except OSError as error:
            os.truncate(self._path, size)
            raise RecordsError(
                f"The result of episode seed {record.seed} cannot be written to {self._path}: "
                f"{(error.strerror or str(error)).lower()}. The episodes before it are kept; "
                "make room and run the same command again."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _parse(line: bytes, place: str) -> EpisodeRecord:
    try:
        return from_json(EpisodeRecord, json.loads(line))
    except (ValueError, SpecInvalid) as error:
        raise RecordsError(
            f"{place} is not an episode record: {error}. Delete that line to run its episode again, "
            "or pass --overwrite to begin anew."
        ) from error


def _cut_half_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.truncate(path, whole)
