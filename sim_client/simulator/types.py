"""What goes into the simulator and what comes out of it: plain values, without any simulator import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float32, UInt8

from sim_client.errors import InvalidOption
from sim_client.option_checks import RENDER_BACKENDS, SIM_BACKENDS, require_at_least, require_choice

__all__ = [
    "DEFAULT_MAX_EPISODE_STEPS",
    "SimulationSettings",
    "SimulatorDescription",
    "SimulatorObservation",
    "StepResult",
]

DEFAULT_MAX_EPISODE_STEPS = 300
"""Twice the longest common demonstration (PegInsertionSide-v1, about 150 steps at 20 Hz)."""


@dataclass(frozen=True)
class SimulationSettings:
    """One ManiSkill environment, completely described.

    Raises:
        InvalidOption: a value is out of range; the message names the flag.
    """

    env_id: str
    """ManiSkill's name of the task, such as `StackCube-v1`."""
    robot_uids: str = "panda_wristcam"
    """ManiSkill's name of the robot. The default has a camera on its hand, on all six tasks."""
    control_mode: str = "pd_ee_delta_pose"
    """ManiSkill's name of the controller, which says what an action means."""
    sim_freq: int = 100
    """Physics steps per simulated second; a multiple of `control_freq`."""
    control_freq: int = 20
    """Actions per simulated second. Part of the action space: the same actions at another rate fail."""
    camera_height: int = 128
    """Rows of every camera's image."""
    camera_width: int = 128
    """Columns of every camera's image."""
    max_episode_steps: int = DEFAULT_MAX_EPISODE_STEPS
    """Actions after which an episode is truncated. ManiSkill's own 50 is shorter than its demonstrations."""
    sim_backend: str = "cpu"
    """Where physics runs: `cpu` (reproducible to the bit) or `gpu`."""
    render_backend: str = "cpu"
    """Where images are rendered: `cpu`, `gpu`, or `none` for physics without any camera."""

    def __post_init__(self) -> None:
        positive = {
            "--sim-freq": self.sim_freq,
            "--control-freq": self.control_freq,
            "--camera-size": min(self.camera_height, self.camera_width),
            "--max-episode-steps": self.max_episode_steps,
        }
        for flag, value in positive.items():
            require_at_least(flag, value, 1)
        if self.sim_freq % self.control_freq:
            raise InvalidOption(
                f"The simulation frequency {self.sim_freq} Hz is not a multiple of the control frequency "
                f"{self.control_freq} Hz. Pass --sim-freq {5 * self.control_freq}, or another multiple.",
                field="--sim-freq",
            )
        require_choice("--sim-backend", self.sim_backend, SIM_BACKENDS)
        require_choice("--render-backend", self.render_backend, RENDER_BACKENDS)


@dataclass(frozen=True)
class SimulatorDescription:
    """What only a running simulator knows about itself."""

    cameras: tuple[str, ...]
    """Names, in ManiSkill's order."""
    action_low: tuple[float, ...]
    """Lower bounds."""
    action_high: tuple[float, ...]
    """Upper bounds."""
    state_sources: Mapping[str, int]
    """Width of each entry of `SimulatorObservation.state`."""

    @classmethod
    def of(cls, simulator: SelfDescribing) -> SimulatorDescription:
        """The plain facts, which travel between processes and into files."""
        return cls(
            cameras=tuple(simulator.cameras),
            action_low=tuple(simulator.action_low.tolist()),
            action_high=tuple(simulator.action_high.tolist()),
            state_sources=dict(simulator.state_sources),
        )


class SelfDescribing(Protocol):
    """A simulator, real or fake."""

    cameras: tuple[str, ...]
    action_low: Float32[np.ndarray, "action_dim"]
    action_high: Float32[np.ndarray, "action_dim"]
    state_sources: Mapping[str, int]


@dataclass(frozen=True)
class SimulatorObservation:
    """What the robot senses at one moment."""

    images: Mapping[str, UInt8[np.ndarray, "height width 3"]]
    """RGB per camera, for the cameras that were asked for. The arrays belong to the caller."""
    state: Mapping[str, Float32[np.ndarray, "dim"]]
    """Numbers per source: `agent/qpos`, `agent/qvel`, `extra/tcp_pose` and what else the task reports."""


@dataclass(frozen=True)
class StepResult:
    """What the task says after one action."""

    success: bool
    """The task's own criterion, at this step."""
    stages: Mapping[str, bool]
    """Every other yes or no that the task reports, such as `is_cubeA_grasped`."""
    truncated: bool
    """Whether `max_episode_steps` actions have been taken."""
    elapsed_steps: int
    """Actions since the reset."""
