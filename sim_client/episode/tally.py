"""Keeping count during one episode."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
from jaxtyping import Float, Float32

from policy_protocol import ActionChunk, PolicySpec
from sim_client.episode.drift import DriftMeter
from sim_client.episode.environment import Robot
from sim_client.episode.record import EpisodeRecord, Outcome, Provenance, WallTime
from sim_client.simulator import StepResult

__all__ = ["EpisodeTally"]

_CLIP_TOLERANCE = 1e-6
"""A number this little beyond the bound is rounding, not clipping."""
_FAILED = "fail"
"""ManiSkill's flag of an episode that cannot succeed any more."""


class EpisodeTally:
    """Everything that an `EpisodeRecord` reports, gathered step by step.

    Args:
        spec: the policy's.
        robot: for the controller's bounds.
    """

    def __init__(self, spec: PolicySpec, robot: Robot) -> None:
        self.drift = DriftMeter(spec)
        self._low, self._high = robot.action_low, robot.action_high
        self._seconds = {"simulate": 0.0, "render": 0.0, "wait": 0.0, "film": 0.0}
        self._started = time.perf_counter()
        self._actions = hashlib.blake2b(digest_size=8)
        self._clipped = 0
        self._stages: dict[str, int | None] = {}
        self._not_from_the_start: set[str] = set()
        self._timings: list[Mapping[str, float]] = []
        self._delays: list[int] = []
        self._held = 0
        self._last: StepResult | None = None
        self._first_success: int | None = None

    @contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Book the time of a block under `simulate`, `render`, `wait` or `film`."""
        started = time.perf_counter()
        yield
        self.spent(kind, time.perf_counter() - started)

    def spent(self, kind: str, seconds: float) -> None:
        """Book seconds under `simulate`, `render`, `wait` or `film`."""
        self._seconds[kind] += seconds

    @property
    def steps(self) -> int:
        """Actions executed so far."""
        return 0 if self._last is None else self._last.elapsed_steps

    def answered(self, chunk: ActionChunk, delay: int | None = None) -> None:
        """Note a reply's timing, and the control steps that it took if the robot's clock ran."""
        self._timings.append(chunk.timing)
        if delay is not None:
            self._delays.append(delay)

    def held_still(self) -> None:
        """Note that the next action only waits."""
        self._held += 1

    def clip(self, action: Float[np.ndarray, "action_dim"]) -> Float32[np.ndarray, "action_dim"]:
        """The action as the controller takes it; counts what had to be cut off."""
        action = np.asarray(action, np.float32)
        clipped = np.clip(action, self._low, self._high)
        self._clipped += int(np.sum(np.abs(action - clipped) > _CLIP_TOLERANCE))
        self._actions.update(clipped.tobytes())
        return clipped

    def stepped(self, result: StepResult) -> None:
        """Note what the task said after a step."""
        self._last = result
        if result.success and self._first_success is None:
            self._first_success = result.elapsed_steps
        for flag, holds in result.stages.items():
            self._stages.setdefault(flag, None)
            if not holds:
                self._not_from_the_start.add(flag)
            elif self._stages[flag] is None and flag in self._not_from_the_start:
                self._stages[flag] = result.elapsed_steps

    def is_over(self, settle_steps: int | None) -> bool:
        """The limit is reached, the task has failed, or the first success is `settle_steps` ago."""
        if self._last is None:
            return False
        settled = (
            settle_steps is not None
            and self._first_success is not None
            and self.steps >= self._first_success + settle_steps
        )
        return self._last.truncated or self._last.stages.get(_FAILED, False) or settled

    def record(
        self, index: int, seed: int, env_id: str, provenance: Provenance, total_s: float | None = None
    ) -> EpisodeRecord:
        """The finished episode; `total_s` is its wall time, by default all that passed since the tally was made."""
        assert self._last is not None, "an episode has at least one step"
        return EpisodeRecord(
            index=index,
            seed=seed,
            env_id=env_id,
            outcome=self._outcome(),
            success_once=self._first_success is not None,
            success_at_end=self._last.success,
            steps=self.steps,
            provenance=provenance,
            first_success=self._first_success,
            chunks=len(self._timings),
            wall=self._wall(time.perf_counter() - self._started if total_s is None else total_s),
            stages=dict(self._stages),
            clipped_share=round(self._clipped / (self.steps * self._low.size), 4),
            state_outside_share=self.drift.state_outside_share,
            state_outside_by_dimension=self.drift.state_outside_by_dimension,
            cameras=self.drift.cameras,
            round_trip_ms=self._milliseconds("round_trip_ms"),
            infer_ms=self._milliseconds("infer_ms"),
            held_steps=self._held,
            delay_steps=tuple(self._delays),
            action_hash=self._actions.hexdigest(),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _outcome(self) -> Outcome:
        assert self._last is not None
        if self._first_success is not None:
            return "success"
        return "failure" if self._last.stages.get(_FAILED, False) else "timeout"

    def _wall(self, total_s: float) -> WallTime:
        seconds = {f"{kind}_s": round(value, 3) for kind, value in self._seconds.items()}
        return WallTime(**seconds, total_s=round(total_s, 3))

    def _milliseconds(self, name: str) -> tuple[float, ...]:
        return tuple(round(float(timing[name]), 2) for timing in self._timings if name in timing)
