"""One episode without any input or output: what to ask, which action comes next, when it is over, what is recorded.

A runner does the rest. It observes and asks when the episode `wants_chunk`, steps with `next_action`, and hands back
what came of both, so that one environment or many at once are driven by the very same rules:

```
wants_chunk ──► observed(what the simulator shows) ──► Question ──► the policy ──► answered(its chunk)
next_action() ──► the simulator's step ──► stepped(its result) ──► is_over? ──► record()
```
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from policy_protocol import ActionChunk, EpisodeMoment, noise_seed
from sim_client.episode.chunk_use import MEASURED
from sim_client.episode.chunks import ChunkExecutor
from sim_client.episode.environment import Robot
from sim_client.episode.hold import hold_action
from sim_client.episode.observation import build_observation, rendered_cameras
from sim_client.episode.question import Question
from sim_client.episode.record import EpisodeRecord
from sim_client.episode.rules import EpisodeRules
from sim_client.episode.tally import EpisodeTally
from sim_client.errors import InvalidOption
from sim_client.simulator import SimulatorObservation, StepResult

__all__ = ["Episode", "Question"]

_ROUND_TRIP = "round_trip_ms"
"""What `PolicyClient` adds to a reply's timing."""


class Episode:
    """The state of one episode, from its reset to its record. Its clock starts when it is made.

    Args:
        rules: the run's.
        robot: whose cameras and bounds it is; any environment.
        index: its place in the run's list, from 0.
        seed: its reset seed.

    Attributes:
        cameras: the simulator cameras to render whenever it is observed.
    """

    cameras: tuple[str, ...]

    def __init__(self, rules: EpisodeRules, robot: Robot, index: int, seed: int) -> None:
        self.rules, self.index, self.seed = rules, index, seed
        self.cameras = rendered_cameras(rules.spec, robot.cameras)
        self._tally = EpisodeTally(rules.spec, robot)
        self._chunks = ChunkExecutor(rules.chunk_use)
        self._settings = robot.settings
        self._last: Float32[np.ndarray, "action_dim"] | None = None

    @property
    def steps(self) -> int:
        """Actions executed so far."""
        return self._tally.steps

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be run: the limit, a declared failure, or a success that has settled."""
        return self._tally.is_over(self.rules.settle_steps)

    @property
    def wants_chunk(self) -> bool:
        """Whether it has to be observed, and a chunk asked for, before the next action."""
        return self._chunks.wants_chunk

    def observed(self, seen: SimulatorObservation) -> Question:
        """What to ask the policy about this moment.

        Args:
            seen: the state now, and an image of each of `cameras`.
        """
        observation = build_observation(self.rules.spec, seen, self.rules.prompt)
        self._tally.drift.see(observation)
        return Question(
            observation,
            noise_seed=noise_seed(self.rules.provenance.run_seed, self.seed, self._chunks.chunks),
            moment=EpisodeMoment(self.rules.env_id, self.seed, self.steps),
        )

    def answered(self, chunk: ActionChunk) -> None:
        """Take the answer to the question that was asked last."""
        delay = self._delay(chunk)
        self._tally.answered(chunk, delay)
        self._chunks.load(chunk.actions, delay or 0)

    def next_action(self) -> Float32[np.ndarray, "action_dim"]:
        """The action to step the simulator with now, clipped to the controller's bounds. Once for each step."""
        action = self._chunks.next_action()
        if action is None:
            assert self._last is not None, "the first chunk is not waited for"
            self._tally.held_still()
            action = hold_action(self._settings.control_mode, self.rules.spec.action.names, self._last)
        self._last = self._tally.clip(action)
        return self._last

    def stepped(self, result: StepResult) -> None:
        """Take what the task said after the action."""
        self._tally.stepped(result)

    def spending(self, kind: str) -> AbstractContextManager[None]:
        """Book the wall time of a block under `simulate`, `render`, `wait` or `film`."""
        return self._tally.spending(kind)

    def spent(self, kind: str, seconds: float) -> None:
        """Book seconds as `spending` does: this episode's share of what was done for several."""
        self._tally.spent(kind, seconds)

    def record(self, total_s: float | None = None) -> EpisodeRecord:
        """What happened. Only after at least one step.

        Args:
            total_s: wall time to report; by default all that passed since the episode was made.
        """
        record = self._tally.record(self.index, self.seed, self.rules.env_id, self.rules.provenance, total_s)
        return replace(record, chunk_use=self.rules.chunk_use)

    def _delay(self, chunk: ActionChunk) -> int | None:
        """Control steps until this reply is there; None on a robot whose clock stands still meanwhile."""
        use = self.rules.chunk_use
        if not use.has_clock:
            return None
        if use.measured_latency and _ROUND_TRIP not in chunk.timing:
            raise InvalidOption(
                f"--latency-ms {MEASURED} needs a policy whose replies tell their {_ROUND_TRIP!r}, as those of "
                "PolicyClient do. Pass a number of milliseconds.",
                field="--latency-ms",
            )
        return use.delay_steps(chunk.timing.get(_ROUND_TRIP, 0.0), self._settings.control_freq)
