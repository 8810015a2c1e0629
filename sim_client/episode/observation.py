"""From what the simulator senses to what the policy's spec asks for."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from policy_protocol import Observation, PolicySpec
from sim_client.simulator import SimulatorObservation

__all__ = ["build_observation", "rendered_cameras"]


def rendered_cameras(spec: PolicySpec, available: tuple[str, ...]) -> tuple[str, ...]:
    """The simulator cameras to render: those that the policy saw in training and the simulator has."""
    wanted = [camera.simulator_camera for camera in spec.observation.cameras if not camera.all_zero]
    return tuple(dict.fromkeys(name for name in wanted if name in available))


def build_observation(spec: PolicySpec, seen: SimulatorObservation, prompt: str) -> Observation:
    """The map of wire keys: images (height, width, 3) uint8, state (state_dim,) float32, the prompt.

    A camera that was black throughout training is shown black again; an optional one that was not rendered is left
    out, and the server masks it.
    """
    observation: dict[str, object] = {
        spec.observation.state.key: _state(spec, seen),
        spec.observation.prompt.key: prompt,
    }
    for camera in spec.observation.cameras:
        if camera.all_zero:
            observation[camera.key] = np.zeros((camera.height, camera.width, 3), np.uint8)
        elif camera.simulator_camera in seen.images:
            observation[camera.key] = seen.images[camera.simulator_camera]
    return observation


def _state(spec: PolicySpec, seen: SimulatorObservation) -> Float32[np.ndarray, "state_dim"]:
    parts = [seen.state[part.source][part.start : part.stop] for part in spec.observation.state.fields]
    return np.concatenate(parts).astype(np.float32)
