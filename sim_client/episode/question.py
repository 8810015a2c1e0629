"""What an episode asks the policy."""

from __future__ import annotations

from dataclasses import dataclass

from policy_protocol import EpisodeMoment, Observation

__all__ = ["Question"]


@dataclass(frozen=True)
class Question:
    """The arguments of `Policy.infer`."""

    observation: Observation
    noise_seed: int
    """A function of the run's seed, the episode's seed and the chunk's index, and of nothing else."""
    moment: EpisodeMoment
