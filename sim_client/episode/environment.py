"""What an episode needs of a simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, UInt8

from sim_client.simulator import SimulationSettings, SimulatorObservation, StepResult

__all__ = ["Environment", "Robot", "open_environment"]


class Robot(Protocol):
    """What an episode knows of the environment that it runs in, be it alone there or one of many."""

    settings: SimulationSettings
    cameras: tuple[str, ...]
    """Names of the cameras that can be rendered."""
    action_low: Float32[np.ndarray, "action_dim"]
    """Smallest action that the controller takes."""
    action_high: Float32[np.ndarray, "action_dim"]
    state_sources: Mapping[str, int]
    """Width of every entry of `SimulatorObservation.state`."""


class Environment(Robot, Protocol):
    """A robot and its task; `sim_client.simulator.Simulator` is the one on ManiSkill."""

    def reset(self, seed: int) -> None:
        """Start the episode that `seed` determines."""

    def step(self, action: Float[np.ndarray, "action_dim"]) -> StepResult:
        """Apply one action for one control period; renders nothing."""

    def observe(self, cameras: Sequence[str] | None = None) -> SimulatorObservation:
        """The state now, and the images of `cameras` (None: all) rendered now."""

    def film(self, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
        """The scene now as an onlooker sees it, for a video; changes neither observations nor physics."""

    def close(self) -> None:
        """Free the scene."""


def open_environment(settings: SimulationSettings) -> Environment:
    """Load ManiSkill (about ten seconds) and build the environment.

    Raises:
        SimulationError: the environment cannot be made as asked.
    """
    from sim_client.simulator import Simulator

    return Simulator(settings)
