"""ManiSkill as any client uses it: through gymnasium, rendering in every step. Says where the time of a step goes."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import mani_skill.envs  # noqa: F401 -- registers the tasks
import numpy as np
from evaluation_task import CAMERAS, CONTROL_FREQ, CONTROL_MODE, ENV_ID, ROBOT, SIM_FREQ, STATE_WIDTH, hash_of
from numpy.typing import NDArray

__all__ = ["PlainEnvironment"]


class PlainEnvironment:
    """StackCube-v1 with two cameras. No reward is computed, which no side needs."""

    def __init__(self, steps: int, camera_size: int) -> None:
        self._environment = gymnasium.make(
            ENV_ID,
            robot_uids=ROBOT,
            control_mode=CONTROL_MODE,
            obs_mode="rgb",
            reward_mode="none",
            max_episode_steps=steps,
            sensor_configs={"height": camera_size, "width": camera_size},
            sim_config={"sim_freq": SIM_FREQ, "control_freq": CONTROL_FREQ},
            sim_backend="cpu",
            render_backend="cpu",
        )
        self._time_rendering(self._environment.unwrapped)
        self._begin()

    def reset(self, seed: int) -> Any:
        """The first observation, as ManiSkill gives it."""
        self._begin()
        begun = time.perf_counter()
        seen, _ = self._environment.reset(seed=seed)
        self._inside_s += time.perf_counter() - begun
        return seen

    def step(self, action: NDArray[np.float32]) -> Any:
        """The next one."""
        self._actions.append(action)
        begun = time.perf_counter()
        seen, *_ = self._environment.step(action)
        self._inside_s += time.perf_counter() - begun
        return seen

    @staticmethod
    def images_and_state(seen: Any) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float32]]:
        """Images by wire key, and joints, out of ManiSkill's tensors."""
        images = {key: seen["sensor_data"][camera]["rgb"][0].cpu().numpy() for key, camera in CAMERAS.items()}
        return images, seen["agent"]["qpos"][0, :STATE_WIDTH].cpu().numpy()

    def record(self, seed: int, requests: int) -> dict[str, Any]:
        """The episode since the reset: what was done, and the seconds that it took."""
        total = time.perf_counter() - self._begun
        simulate = self._inside_s - self._render_s
        return {
            "seed": seed,
            "steps": len(self._actions),
            "chunks": requests,
            "action_hash": hash_of(np.stack(self._actions)),
            "wall": {
                "simulate_s": simulate,
                "render_s": self._render_s,
                "wait_s": total - self._inside_s,
                "total_s": total,
            },
        }

    def _begin(self) -> None:
        self._begun, self._inside_s, self._render_s = time.perf_counter(), 0.0, 0.0
        self._actions: list[NDArray[np.float32]] = []

    def _time_rendering(self, inner: Any) -> None:
        """Rendering happens inside of ManiSkill's step: a stopwatch around the one method that does it."""
        render = inner._get_obs_sensor_data

        def timed(*arguments: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            images = render(*arguments, **named)
            self._render_s += time.perf_counter() - begun
            return images

        inner._get_obs_sensor_data = timed
