"""What a wave of episodes needs of a simulator that runs many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float

from sim_client.episode.environment import Robot
from sim_client.simulator import SimulationSettings, StepResults, VectorObservation, require_backend

__all__ = ["VectorEnvironment", "open_vector_environment"]


class VectorEnvironment(Robot, Protocol):
    """Robots at copies of one task; `sim_client.simulator.VectorSimulator` is the one on ManiSkill.

    Bounds and widths are those of one robot.
    """

    num_envs: int

    def reset(self, seeds: Sequence[int]) -> None:
        """Start an episode in every environment, each the one that its own seed determines."""

    def step(self, actions: Float[np.ndarray, "env action_dim"]) -> StepResults:
        """Apply one action in every environment for one control period; renders nothing."""

    def observe(self, cameras: Sequence[str] | None = None, envs: Sequence[int] | None = None) -> VectorObservation:
        """The states of `envs` (None: all) now, and the images of `cameras` (None: all) rendered now."""

    def close(self) -> None:
        """Free the scenes."""


def open_vector_environment(settings: SimulationSettings, num_envs: int) -> VectorEnvironment:
    """Load ManiSkill (about ten seconds) and build the environments.

    Raises:
        InvalidOption: the backends do not go together, or not with so many environments.
        SimulationError: there is no GPU, or the environments cannot be made as asked.
    """
    require_backend(settings, num_envs)
    from sim_client.simulator import VectorSimulator

    return VectorSimulator(settings, num_envs)
