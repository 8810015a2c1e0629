"""What is kept of an episode."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from policy_protocol.json_tree import to_json
from sim_client.episode.chunk_use import ChunkUse

__all__ = ["CameraStatistics", "EpisodeRecord", "Outcome", "Provenance", "WallTime"]

Outcome = Literal["success", "failure", "timeout", "error"]
"""Succeeded at least once; the task declared it failed; the limit came first; the infrastructure broke."""


@dataclass(frozen=True)
class CameraStatistics:
    """Colour of every image that the policy was shown by one camera, 0 to 255."""

    mean: tuple[float, ...]
    """Red, green, blue."""
    std: tuple[float, ...]


@dataclass(frozen=True)
class WallTime:
    """Where the seconds of an episode went."""

    simulate_s: float = 0.0
    """Resetting and stepping physics."""
    render_s: float = 0.0
    """Rendering the observations that were sent."""
    wait_s: float = 0.0
    """Waiting for the policy, the network included."""
    film_s: float = 0.0
    """Rendering and encoding the video."""
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
    state_outside_by_dimension: tuple[float, ...] = ()
    """The same for each number of the state, in the spec's order."""
    cameras: Mapping[str, CameraStatistics] = field(default_factory=dict)
    round_trip_ms: tuple[float, ...] = ()
    """Client-measured time of each request."""
    infer_ms: tuple[float, ...] = ()
    """Device time of each request, as the server reports it."""
    chunk_use: ChunkUse | None = None
    """How chunks were turned into actions; None in records of before there was a choice: receding horizon."""
    delay_steps: tuple[int, ...] = ()
    """Control steps that passed on the robot's clock until each reply was there; empty where its clock stood still.
    The first reply is not waited for, for nothing has begun."""
    held_steps: int = 0
    """Steps, of `steps`, at which the robot held still because the next chunk was not there yet."""
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
