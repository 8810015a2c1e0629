"""What an evaluation's workers do: episodes, begun anew after infrastructure errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from sim_client.episode.vector_environment import open_vector_environment
from sim_client.errors import SimulationError
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.players import Player, SinglePlayer, WavePlayer
from sim_client.evaluation.policy_line import PolicyLine
from sim_client.evaluation.void import void_record
from sim_client.evaluation.work_list import Assignment
from sim_client.policy_client import Policy
from sim_client.simulator import SimulationSettings, SimulatorDescription
from sim_client.versions import installed_versions

__all__ = ["EpisodeWorkshop", "Opener", "Said", "WorkerFacts"]

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


@dataclass(frozen=True)
class WorkerFacts:
    """What the parent checks before a worker's first episode."""

    simulator: SimulatorDescription
    versions: Mapping[str, str]
    """Of the packages on the worker's machine."""


class _EpisodeBench:
    """One simulator and one connection."""

    def __init__(self, workshop: EpisodeWorkshop, player: Player, tell: Tell) -> None:
        self._workshop, self._player, self._tell = workshop, player, tell
        self._patience_s = workshop.dial.patience_s
        self._line = PolicyLine(self._connect)

    @property
    def facts(self) -> WorkerFacts:
        return WorkerFacts(SimulatorDescription.of(self._player.environment), installed_versions())

    def work(self, lease: Sequence[Assignment]) -> Iterator[EpisodeRecord | ChunkwireError]:
        """Run the episodes of `lease`; those that are not over when the infrastructure fails are begun anew.

        Yields:
            Each episode's record as soon as there is one. Last of all an error, when the run cannot go on: the server
            is gone for good, or the policy or the protocol is broken.
        """
        work = _Work(lease)
        while work.left:
            work.attempt += 1
            try:
                policy = self._line.policy()
            except ChunkwireError as error:
                if isinstance(error, ServerUnavailable):  # for good: it was tried for as long as the user allows
                    yield from self._void(work, error)
                yield error
                return
            try:
                for record in self._player.play(_Watched(policy, self._tell, self._patience_s), tuple(work.left)):
                    yield work.finish(record)
            except _INFRASTRUCTURE as error:
                self._line.close()
                if not self._goes_on(work, error):
                    yield from self._void(work, error)
                    return
            except ChunkwireError as error:
                yield error
                return

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
        policy = self._workshop.dial.connect(self._say)
        self._tell()
        return policy

    def _say(self, text: str) -> None:
        self._tell(Said(text), patience_s=self._patience_s)

    def _void(self, work: _Work, error: ChunkwireError) -> Iterator[EpisodeRecord]:
        text, lost_s = f"{error.code}: {error.message}", work.share_s
        for one in work.left:
            yield void_record(self._workshop.rules, one, one.begun + work.attempt, text, one.lost_s + lost_s)


@dataclass
class _Work:
    """A lease on its way: what is left, and what it has cost so far."""

    lease: Sequence[Assignment]
    attempt: int = 0

    def __post_init__(self) -> None:
        self.left = list(self.lease)
        self._began = time.perf_counter()

    @property
    def share_s(self) -> float:
        """Seconds since the lease was taken, shared by its episodes."""
        return (time.perf_counter() - self._began) / len(self.lease)

    def finish(self, record: EpisodeRecord) -> EpisodeRecord:
        """Take a record off the list; what came before its last attempt is added to it."""
        (one,) = (one for one in self.left if one.index == record.index)
        self.left.remove(one)
        lost_s = max(0.0, self.share_s - record.wall.total_s) if self.attempt > 1 else 0.0
        return replace(record, attempts=one.begun + self.attempt, lost_s=round(one.lost_s + lost_s, 3))


class _Watched:
    """The policy during one attempt, with a word to the parent around a question that may take long.

    An attempt in which the connection was made anew is void: what answers may be a server that was restarted, and an
    episode is never half one policy's and half another's.
    """

    def __init__(self, policy: Policy, tell: Tell, patience_s: float) -> None:
        self.spec = policy.spec
        self._policy, self._tell, self._patience_s = policy, tell, patience_s
        self._redials: int | None = None

    def infer(self, observation: Observation, **terms: Any) -> ActionChunk:
        self._tell(patience_s=self._patience_s)
        chunk = self._policy.infer(observation, **terms)
        self._tell()
        before, self._redials = self._redials, self._policy.redials
        if before is not None and before != self._redials:
            raise ServerUnavailable(
                "The connection to the policy server was lost and made anew in the middle of the episode, perhaps to "
                "a server that was restarted."
            )
        return chunk

    def close(self) -> None:
        self._policy.close()
