"""Recorded demonstrations as something to replay: the actions of each reset seed, and the spec that follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from policy_protocol.errors import ChunkwireError
from policy_protocol.spec import (
    ActionSpec,
    CameraSpec,
    CheckpointId,
    ObservationSpec,
    PolicySection,
    PolicySpec,
    PromptSpec,
    SimulationSpec,
    StateField,
    StateSpec,
)
from training.pi05.model.config import SLOTS

__all__ = ["RecordedCamera", "RecordedFacts", "Recording", "RecordingInvalid"]

_ACTION_HORIZON, _EXECUTION_HORIZON = 50, 10
_LIMIT_FACTOR = 1.5
"""How much longer than the longest demonstration an episode may take; training/policy_spec.py has the same."""


class RecordingInvalid(ChunkwireError):
    """Demonstrations that cannot be replayed."""

    code = "recording_invalid"


@dataclass(frozen=True)
class RecordedCamera:
    """One camera of the demonstrations; fields as in `meta/chunkwire.json`."""

    key: str
    simulator_camera: str
    height: int
    width: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    all_zero: bool = False


@dataclass(frozen=True)
class RecordedFacts:
    """How demonstrations were recorded; fields as in `meta/chunkwire.json`."""

    env_ids: tuple[str, ...]
    robot_uids: str
    control_mode: str
    sim_freq: int
    control_freq: int
    cameras: tuple[RecordedCamera, ...]
    state_fields: tuple[StateField, ...]
    prompts: tuple[str, ...]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    demonstration_seeds: tuple[int, ...] = ()
    frame_stride: int = 1
    fingerprint: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """Demonstrations by reset seed, in the order in which they were recorded."""

    source: Path
    facts: RecordedFacts
    actions: Mapping[int, Float[np.ndarray, "steps action_dim"]]
    """In the controller's units and the recorded dtype."""

    def spec(self) -> PolicySpec:
        """The spec of a policy that acts as recorded. Its family and sizes are no model's: it has 0 parameters."""
        facts = self.facts
        policy = PolicySection(
            family="pi05",
            action_horizon=_ACTION_HORIZON,
            execution_horizon=_EXECUTION_HORIZON,
            denoising_steps=1,
            checkpoint=CheckpointId("replay", self.source.stem, 0),
            parameter_count=0,
            normalization="quantile",
            dataset_fingerprint=facts.fingerprint,
            versions=facts.versions,
        )
        observation = ObservationSpec(
            cameras=tuple(_camera(camera, slot) for camera, slot in zip(facts.cameras, SLOTS, strict=False)),
            state=StateSpec("observation/state", facts.state_fields),
            prompt=PromptSpec("prompt", 200, includes_state=False, trained=tuple(sorted(set(facts.prompts)))),
        )
        action = ActionSpec(
            len(facts.action_names), facts.action_names, facts.control_mode, facts.action_low, facts.action_high
        )
        return PolicySpec(policy, observation, action, self._simulation())

    def _simulation(self) -> SimulationSpec:
        facts, lengths = self.facts, [len(actions) for actions in self.actions.values()]
        quantiles = {"q50": 0.5, "q95": 0.95, "max": 1.0}
        return SimulationSpec(
            env_ids=facts.env_ids,
            robot_uids=facts.robot_uids,
            sim_freq=facts.sim_freq,
            control_freq=facts.control_freq,
            demonstration_length={name: float(np.quantile(lengths, share)) for name, share in quantiles.items()},
            max_episode_steps=math.ceil(_LIMIT_FACTOR * max(lengths)),
            demonstration_seeds=tuple(self.actions),
            frame_stride=facts.frame_stride,
        )


def _camera(camera: RecordedCamera, slot: str) -> CameraSpec:
    return CameraSpec(
        key=f"observation/{camera.key}",
        slot=slot,
        simulator_camera=camera.simulator_camera,
        height=camera.height,
        width=camera.width,
        mean=camera.mean,
        std=camera.std,
        all_zero=camera.all_zero,
    )
