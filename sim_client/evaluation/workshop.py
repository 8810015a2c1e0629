"""What an evaluation's workers do: episodes, begun anew after infrastructure errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from sim_client.episode.vector_environment import open_vector_environment
from sim_client.errors import SimulationError
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.players import Player, SinglePlayer, WavePlayer
from sim_client.evaluation.policy_line import PolicyLine
from sim_client.evaluation.void import void_record
from sim_client.evaluation.work_list import Assignment
from sim_client.policy_client import Policy
from sim_client.simulator import SimulationSettings, SimulatorDescription

__all__ = ["EpisodeWorkshop", "Opener", "Said", "Verdict"]

Opener = Callable[[SimulationSettings], Environment]

_INFRASTRUCTURE = (ServerUnavailable, Overloaded, DeadlineExceeded, Draining, InternalError, SimulationError)
"""What says nothing about the policy: the episode is void and begun again with the same seed."""

_PAUSE_S = 0.5
"""Breath taken before another attempt, so that an overloaded server is not asked again at once."""


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
    """Everything that a worker needs; the same for all of them."""

    settings: SimulationSettings
    rules: EpisodeRules
    keepsakes: Keepsakes
    dial: Dial
    retries: int
    open_environment: Opener
    num_envs: int = 1
    """Environments that one worker simulates side by side."""

    def open(self, tell: Tell) -> _EpisodeBench:
        """Build the simulator. Raises `SimulationError`."""
        return _EpisodeBench(self, self._player(tell), tell)

    def _player(self, tell: Tell) -> Player:
        if self.settings.sim_backend == "cpu":
            return SinglePlayer(self.open_environment(self.settings), self.rules, self.keepsakes, tell)
        environments = open_vector_environment(self.settings, self.num_envs)
        return WavePlayer(environments, self.rules, self.keepsakes, tell)


class _EpisodeBench:
    """One simulator and one connection."""

    def __init__(self, workshop: EpisodeWorkshop, player: Player, tell: Tell) -> None:
        self._workshop, self._player, self._tell = workshop, player, tell
        self._patience_s = workshop.dial.patience_s
        self._line = PolicyLine(self._connect, workshop.rules.spec.hash)

    @property
    def facts(self) -> SimulatorDescription:
        return SimulatorDescription.of(self._player.environment)

    def work(self, lease: Sequence[Assignment]) -> Verdict:
        """Run the episodes of `lease`; those that are not over when the infrastructure fails are begun anew."""
        work = _Work(lease)
        while work.left:
            work.attempt += 1
            try:
                policy = self._line.policy()
            except ServerUnavailable as error:  # for good: it was tried for as long as the user allows
                return Verdict((*work.done, *self._void(work, error)), fatal=error)
            except ChunkwireError as error:
                return Verdict(tuple(work.done), fatal=error)
            try:
                for record in self._player.play(_Watched(policy, self._tell, self._patience_s), work.left):
                    work.finish(record)
            except _INFRASTRUCTURE as error:
                self._line.close()
                if not self._goes_on(work, error):
                    return Verdict((*work.done, *self._void(work, error)))
            except ChunkwireError as error:
                return Verdict(tuple(work.done), fatal=error)
        return Verdict(tuple(work.done))

    def close(self) -> None:
        self._line.close()
        self._player.environment.close()

    def _goes_on(self, work: _Work, error: ChunkwireError) -> bool:
        """Whether there is another attempt; says that this one is void, and takes a breath."""
        attempts = self._workshop.retries + 1
        for one in work.left:
            self._say(f"Episode seed {one.seed}, attempt {one.begun + work.attempt} of {attempts} is void: {error}")
        if work.left[0].begun + work.attempt >= attempts:
            return False
        time.sleep(_PAUSE_S * work.attempt)
        return True

    def _connect(self) -> Policy:
        self._tell(patience_s=self._patience_s)
        return self._workshop.dial.connect(self._say)

    def _say(self, text: str) -> None:
        self._tell(Said(text), patience_s=self._patience_s)

    def _void(self, work: _Work, error: ChunkwireError) -> list[EpisodeRecord]:
        text, lost_s = f"{error.code}: {error.message}", work.seconds
        return [
            void_record(self._workshop.rules, one, one.begun + work.attempt, text, one.lost_s + lost_s)
            for one in work.left
        ]


@dataclass
class _Work:
    """A lease on its way: what is done, what is left, and what it has cost so far."""

    lease: Sequence[Assignment]
    attempt: int = 0
    done: list[EpisodeRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = list(self.lease)
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def finish(self, record: EpisodeRecord) -> None:
        """Take a record; what came before its last attempt is added to it."""
        (one,) = (one for one in self.left if one.index == record.index)
        self.left.remove(one)
        lost_s = one.lost_s + (max(0.0, self.seconds - record.wall.total_s) if self.attempt > 1 else 0.0)
        self.done.append(replace(record, attempts=one.begun + self.attempt, lost_s=round(lost_s, 3)))


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
