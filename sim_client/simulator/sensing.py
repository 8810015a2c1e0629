"""Reading a ManiSkill environment, with all its copies at once: state, images, and what the task says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.envs.utils.observations import parse_obs_mode_to_struct

__all__ = ["read_flags", "read_state", "render", "stop_observing"]


def stop_observing(environment: BaseEnv) -> None:
    """Make ManiSkill's own reset and step return no observation, hence render nothing.

    Private in mani_skill 3.0.1, which the project pins; a test compares frames with plain stepping.
    """
    environment._obs_mode = "none"
    environment.obs_mode_struct = parse_obs_mode_to_struct("none")


def read_state(environment: BaseEnv, info: Mapping[str, object]) -> dict[str, Float32[np.ndarray, "env dim"]]:
    """What the environment would put into an `rgb` observation beside the images; yes or no becomes one number.

    Returns:
        `agent/qpos`, `extra/tcp_pose` and what else the task reports. The arrays belong to the caller.
    """
    groups = {"agent": environment._get_obs_agent(), "extra": environment._get_obs_extra(info)}
    return {path: _rows(value, environment.num_envs).astype(np.float32) for path, value in _leaves(groups)}


def read_flags(info: Mapping[str, object], num_envs: int) -> dict[str, Bool[np.ndarray, "env"]]:
    """The task's verdicts: entries of one boolean for each environment."""
    arrays = {name: torch.as_tensor(value).cpu().numpy() for name, value in info.items() if not _is_nested(value)}
    return {
        name: array.reshape(num_envs)
        for name, array in arrays.items()
        if array.dtype == bool and array.size == num_envs
    }


def render(
    environment: BaseEnv, cameras: Sequence[str], envs: Sequence[int]
) -> dict[str, UInt8[np.ndarray, "env height width 3"]]:
    """What `BaseEnv._get_obs_sensor_data` does, for the cameras asked for: hide goals, render, read back.

    All environments are rendered in one go; only the images of `envs` leave the device. They belong to the caller.
    """
    for hidden in environment._hidden_objects:
        hidden.hide_visual()
    environment.scene.update_render(update_sensors=True, update_human_render_cameras=False)
    sensors = [environment.scene.sensors[name] for name in cameras]
    for sensor in sensors:
        sensor.capture()
    images = [sensor.get_obs(rgb=True, depth=False, position=False, segmentation=False)["rgb"] for sensor in sensors]
    rows = list(envs)
    return {name: image[rows].cpu().numpy() for name, image in zip(cameras, images, strict=True)}


def _leaves(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """`{"agent": {"qpos": …}}` -> `("agent/qpos", …)`."""
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}/")
        else:
            yield path, value


def _rows(value: object, num_envs: int) -> np.ndarray:
    """A row for each environment; what has none is the same for all of them."""
    array = torch.as_tensor(value).cpu().numpy()
    if num_envs == 1 or array.shape[:1] != (num_envs,):
        array = np.broadcast_to(array.reshape(1, -1), (num_envs, array.size))
    return array.reshape(num_envs, -1)


def _is_nested(value: object) -> bool:
    return isinstance(value, (Mapping, str)) or value is None
