"""How a worker runs the episodes of a lease: one by one, or a wave of them side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sim_client.crew.workshop import Tell
from sim_client.episode.environment import Environment
from sim_client.episode.keepsakes import Keepsakes
from sim_client.episode.record import EpisodeRecord
from sim_client.episode.rules import EpisodeRules
from sim_client.episode.runner import run_episode
from sim_client.episode.vector_environment import VectorEnvironment
from sim_client.episode.vector_runner import run_episodes
from sim_client.evaluation.work_list import Assignment
from sim_client.policy_client import Policy

__all__ = ["Player", "SinglePlayer", "Step", "WavePlayer"]

_RESET_S = 10.0
"""Longest that placing one environment may take: a wave is placed one by one, without a sign of life in between."""


@dataclass(frozen=True)
class Step:
    """A note: how far the running episode is, or the first of several that run."""

    seed: int
    step: int


class Player(Protocol):
    """A simulator, and the loop over it."""

    environment: Environment | VectorEnvironment

    def play(self, policy: Policy, lease: Sequence[Assignment]) -> Iterator[EpisodeRecord]:
        """The episodes' records, each as soon as it is over."""


@dataclass(frozen=True)
class SinglePlayer:
    """One episode after the other."""

    environment: Environment
    rules: EpisodeRules
    keepsakes: Keepsakes
    tell: Tell

    def play(self, policy: Policy, lease: Sequence[Assignment]) -> Iterator[EpisodeRecord]:
        """See `Player`."""
        for one in lease:
            on_step = lambda step, seed=one.seed: self.tell(Step(seed, step))  # noqa: E731
            yield run_episode(self.environment, policy, self.rules, one.index, one.seed, on_step, self.keepsakes)


@dataclass(frozen=True)
class WavePlayer:
    """All episodes of a lease at once, in the environments of a vectorised simulator."""

    environment: VectorEnvironment
    rules: EpisodeRules
    keepsakes: Keepsakes
    tell: Tell

    def play(self, policy: Policy, lease: Sequence[Assignment]) -> Iterator[EpisodeRecord]:
        """See `Player`."""
        seeds = {one.index: one.seed for one in lease}
        on_step = lambda index, step: self.tell(Step(seeds[index], step))  # noqa: E731
        wave = list(seeds.items())
        self.tell(patience_s=_RESET_S * len(wave))
        yield from run_episodes(self.environment, policy, self.rules, wave, on_step, self.keepsakes)
