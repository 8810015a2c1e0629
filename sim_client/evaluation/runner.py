"""Running the fixed list of episodes: each counted exactly once, whatever breaks on the way."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from policy_protocol.errors import (
    ChunkwireError,
    DeadlineExceeded,
    Draining,
    InternalError,
    Overloaded,
    ServerUnavailable,
)
from sim_client.episode.environment import Environment
from sim_client.episode.record import EpisodeRecord
from sim_client.episode.runner import EpisodeRules, run_episode
from sim_client.errors import Interrupted, SimulationError
from sim_client.evaluation.policy_line import PolicyLine
from sim_client.evaluation.progress import Progress
from sim_client.policy_client import Policy
from sim_client.results.directory import ResultsDirectory

__all__ = ["Evaluation"]

_INFRASTRUCTURE = (ServerUnavailable, Overloaded, DeadlineExceeded, Draining, InternalError, SimulationError)
"""What says nothing about the policy: the episode is void and begun again with the same seed."""

_PAUSE_S = 0.5
"""Breath taken before another attempt, so that an overloaded server is not asked again at once."""


@dataclass(frozen=True)
class Evaluation:
    """A results directory, and what its remaining episodes need to run."""

    directory: ResultsDirectory
    rules: EpisodeRules
    environment: Environment
    line: PolicyLine
    progress: Progress

    def run(self) -> None:
        """Run every episode that has no result yet, in the order of the list.

        Raises:
            Interrupted: Ctrl-C.
            ServerUnavailable: the server is gone for good; its episode is recorded as an error.
            ChunkwireError: the policy or the records are broken, so that going on would make no sense.
        """
        try:
            for index, seed in self.directory.remaining():
                self._settle(index, seed)
        except KeyboardInterrupt as error:
            finished = self.directory.run.options.episodes - len(self.directory.remaining())
            raise Interrupted(
                f"Stopped. {finished} of {self.directory.run.options.episodes} episodes are finished and kept in "
                f"{self.directory.path}. Run the same command again to go on."
            ) from error

    def _settle(self, index: int, seed: int) -> None:
        """Give one episode its record, trying again after infrastructure errors."""
        attempts = self.directory.run.options.retries + 1
        began = time.perf_counter()
        for attempt in range(1, attempts + 1):
            try:
                policy = self.line.policy()
            except ServerUnavailable as error:
                self._store(self._void(index, seed, attempt, error, time.perf_counter() - began))
                raise
            try:
                lost = time.perf_counter() - began if attempt > 1 else 0.0
                self._store(replace(self._play(policy, index, seed), attempts=attempt, lost_s=round(lost, 3)))
                return
            except _INFRASTRUCTURE as error:
                self.line.close()
                self.progress.say(f"Episode seed {seed}, attempt {attempt} of {attempts} is void: {error}")
                failure = error
                time.sleep(_PAUSE_S * attempt)
        self._store(self._void(index, seed, attempts, failure, time.perf_counter() - began))

    def _play(self, policy: Policy, index: int, seed: int) -> EpisodeRecord:
        on_step = lambda step: self.progress.step(seed, step)  # noqa: E731
        return run_episode(self.environment, policy, self.rules, index, seed, on_step)

    def _store(self, record: EpisodeRecord) -> None:
        self.directory.append(record)
        self.progress.finished(record)

    def _void(self, index: int, seed: int, attempts: int, error: ChunkwireError, lost_s: float) -> EpisodeRecord:
        return EpisodeRecord(
            index=index,
            seed=seed,
            env_id=self.rules.env_id,
            outcome="error",
            success_once=False,
            success_at_end=False,
            steps=0,
            provenance=self.rules.provenance,
            attempts=attempts,
            lost_s=round(lost_s, 3),
            error=f"{error.code}: {error.message}",
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
