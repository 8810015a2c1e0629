"""The onlooker's view of a ManiSkill scene, for videos: the goal is visible, and nothing of it reaches the policy."""

from __future__ import annotations

import copy

import numpy as np
from jaxtyping import UInt8
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.sensors.camera import Camera, CameraConfig

from sim_client.errors import SimulationError

__all__ = ["FilmCamera"]


class FilmCamera:
    """A camera that stands where ManiSkill's first human render camera does, of a size of its own.

    Belongs to the scene as it is: after a reset that rebuilds the scene, make a new one.

    Args:
        environment: with one scene, and rendering.
        height: rows of a frame.
        width: columns of a frame.

    Raises:
        SimulationError: the task has no such camera.

    Attributes:
        size: height and width.
    """

    def __init__(self, environment: BaseEnv, height: int, width: int) -> None:
        configs = list(environment._human_render_camera_configs.values())
        if not configs:
            raise SimulationError(f"{environment.spec.id} has no camera for onlookers. Pass --video none.")
        self.size = (height, width)
        self._environment = environment
        self._camera = Camera(_resized(configs[0], height, width), environment.scene)

    def shoot(self) -> UInt8[np.ndarray, "height width 3"]:
        """The scene now, with what is hidden from the policy. The array belongs to the caller."""
        hidden = self._environment._hidden_objects
        for one in hidden:
            one.show_visual()
        self._environment.scene.update_render(update_sensors=False, update_human_render_cameras=True)
        self._camera.capture()
        image = self._camera.get_obs(rgb=True, depth=False, position=False, segmentation=False)["rgb"]
        for one in hidden:
            one.hide_visual()
        return image[0].cpu().numpy().copy()


def _resized(config: CameraConfig, height: int, width: int) -> CameraConfig:
    """The same view in another size; the vertical field of view decides, or the intrinsic matrix in pixels."""
    resized = copy.copy(config)
    if config.intrinsic is not None:
        scale = np.array([width / config.width, height / config.height, 1.0])
        resized.intrinsic = np.asarray(config.intrinsic) * scale[:, None]
    resized.uid, resized.height, resized.width = "film", height, width
    return resized
