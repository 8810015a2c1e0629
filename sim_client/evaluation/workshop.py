"""What an evaluation's workers do: episodes, begun anew after infrastructure errors."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from policy_protocol import ActionChunk, Observation
from policy_protocol.errors import (
    ChunkwireError,
    DeadlineExceeded,
    Draining,
    InternalError,
    Overloaded,
    ServerUnavailable,
)
from sim_client.crew.workshop import Tell
from sim_client.episode.environment import Environment
from sim_client.episode.keepsakes import Keepsakes
from sim_client.episode.record import EpisodeRecord
from sim_client.episode.rules import EpisodeRules
from sim_client.episode.runner import run_episode
from sim_client.errors import SimulationError
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.policy_line import PolicyLine
from sim_client.evaluation.void import void_record
from sim_client.evaluation.work_list import Assignment
from sim_client.policy_client import Policy
from sim_client.simulator import SimulationSettings, SimulatorDescription

__all__ = ["EpisodeWorkshop", "Opener", "Said", "Step", "Verdict"]

Opener = Callable[[SimulationSettings], Environment]

_INFRASTRUCTURE = (ServerUnavailable, Overloaded, DeadlineExceeded, Draining, InternalError, SimulationError)
"""What says nothing about the policy: the episode is void and begun again with the same seed."""

_PAUSE_S = 0.5
"""Breath taken before another attempt, so that an overloaded server is not asked again at once."""


@dataclass(frozen=True)
class Step:
    """A note: how far the running episode is."""

    seed: int
    step: int


@dataclass(frozen=True)
class Said:
    """A note: a sentence for the user."""

    text: str


@dataclass(frozen=True)
class Verdict:
    """What became of a lease."""

    records: tuple[EpisodeRecord, ...]
    fatal: ChunkwireError | None = None
    """Why the run cannot go on: the server is gone for good, or the policy or the protocol is broken."""


@dataclass(frozen=True)
class EpisodeWorkshop:
    """Everything that decides what an episode measures; the same for every worker."""

    settings: SimulationSettings
    rules: EpisodeRules
    keepsakes: Keepsakes
    dial: Dial
    retries: int
    open_environment: Opener

    def open(self, tell: Tell) -> _EpisodeBench:
        """Build the simulator. Raises `SimulationError`."""
        return _EpisodeBench(self, self.open_environment(self.settings), tell)


class _EpisodeBench:
    """One simulator and one connection."""

    def __init__(self, workshop: EpisodeWorkshop, environment: Environment, tell: Tell) -> None:
        self._workshop, self._environment, self._tell = workshop, environment, tell
        self._line = PolicyLine(self._connect, workshop.rules.spec.hash)

    @property
    def facts(self) -> SimulatorDescription:
        return SimulatorDescription.of(self._environment)

    def work(self, lease: Sequence[Assignment]) -> Verdict:
        """Run the episodes of `lease` side by side; all are void and begun anew when the infrastructure fails."""
        began = time.perf_counter()
        for attempt in itertools.count(1):
            lost_s = time.perf_counter() - began if attempt > 1 else 0.0
            try:
                policy = self._line.policy()
            except ServerUnavailable as error:  # for good: it was tried for as long as the user allows
                return Verdict(self._void(lease, attempt, error, lost_s), fatal=error)
            except ChunkwireError as error:
                return Verdict((), fatal=error)
            try:
                return Verdict(tuple(_after(attempt, lost_s, self._play(policy, lease), lease)))
            except _INFRASTRUCTURE as error:
                self._line.close()
                if not self._goes_on(lease, attempt, error):
                    return Verdict(self._void(lease, attempt, error, time.perf_counter() - began))
            except ChunkwireError as error:
                return Verdict((), fatal=error)
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._line.close()
        self._environment.close()

    def _goes_on(self, lease: Sequence[Assignment], attempt: int, error: ChunkwireError) -> bool:
        """Whether there is another attempt; says that this one is void, and takes a breath."""
        attempts = self._workshop.retries + 1
        for one in lease:
            self._say(f"Episode seed {one.seed}, attempt {one.begun + attempt} of {attempts} is void: {error}")
        if lease[0].begun + attempt >= attempts:
            return False
        time.sleep(_PAUSE_S * attempt)
        return True

    def _play(self, policy: Policy, lease: Sequence[Assignment]) -> list[EpisodeRecord]:
        (one,) = lease
        watched = _Watched(policy, self._tell, self._workshop.dial.patience_s)
        on_step = lambda step: self._tell(Step(one.seed, step))  # noqa: E731
        shop = self._workshop
        return [run_episode(self._environment, watched, shop.rules, one.index, one.seed, on_step, shop.keepsakes)]

    def _connect(self) -> Policy:
        self._tell(patience_s=self._workshop.dial.patience_s)
        return self._workshop.dial.connect(self._say)

    def _say(self, text: str) -> None:
        self._tell(Said(text), patience_s=self._workshop.dial.patience_s)

    def _void(
        self, lease: Sequence[Assignment], attempt: int, error: ChunkwireError, lost_s: float
    ) -> tuple[EpisodeRecord, ...]:
        text = f"{error.code}: {error.message}"
        return tuple(
            void_record(self._workshop.rules, one, one.begun + attempt, text, one.lost_s + lost_s) for one in lease
        )


def _after(
    attempt: int, lost_s: float, records: Sequence[EpisodeRecord], lease: Sequence[Assignment]
) -> Iterator[EpisodeRecord]:
    """The records, with what came before them."""
    for record, one in zip(records, lease, strict=True):
        yield replace(record, attempts=one.begun + attempt, lost_s=round(one.lost_s + lost_s, 3))


class _Watched:
    """The policy, with a word to the parent before a question that may take long."""

    def __init__(self, policy: Policy, tell: Tell, patience_s: float) -> None:
        self.spec = policy.spec
        self._policy, self._tell, self._patience_s = policy, tell, patience_s

    def infer(self, observation: Observation, **terms: Any) -> ActionChunk:
        self._tell(patience_s=self._patience_s)
        return self._policy.infer(observation, **terms)

    def close(self) -> None:
        self._policy.close()
