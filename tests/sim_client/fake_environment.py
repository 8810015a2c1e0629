"""An environment without ManiSkill: a cart that succeeds once the sum of its first action number reaches 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim_client.errors import SimulationError
from sim_client.simulator import SimulationSettings, SimulatorObservation, StepResult

__all__ = ["FakeEnvironment", "make_settings"]


def make_settings(**changes: object) -> SimulationSettings:
    return SimulationSettings(**{"env_id": "PushCube-v1", "max_episode_steps": 20, **changes})


class FakeEnvironment:
    """Counts what is asked of it; `lose_after` makes the success go away again that many steps later."""

    def __init__(
        self,
        settings: SimulationSettings,
        cameras: tuple[str, ...] = ("base_camera", "hand_camera"),
        action_dim: int = 7,
        lose_after: int | None = None,
    ) -> None:
        self.settings, self.cameras, self._lose_after = settings, cameras, lose_after
        self.action_low = -np.ones(action_dim, np.float32)
        self.action_high = np.ones(action_dim, np.float32)
        self.state_sources = {"agent/qpos": 9, "extra/tcp_pose": 7}
        self.resets: list[int] = []
        self.rendered: list[tuple[str, ...]] = []
        self.filmed: list[int] = []
        self.actions: list[np.ndarray] = []
        self.break_at: int | None = None
        self.closed = False

    def reset(self, seed: int) -> None:
        self.resets.append(seed)
        self._seed, self._steps, self._way, self._succeeded_at = seed, 0, 0.0, None

    def step(self, action: np.ndarray) -> StepResult:
        if self.break_at is not None and self._steps == self.break_at:
            self.break_at = None
            raise SimulationError("The fake simulator broke.")
        self._steps += 1
        self._way += float(action[0])
        self.actions.append(np.asarray(action))
        if self._way >= 1 and self._succeeded_at is None:
            self._succeeded_at = self._steps
        return StepResult(
            success=self._succeeds(),
            stages={"is_half_way": self._way >= 0.5, "is_static": True},
            truncated=self._steps >= self.settings.max_episode_steps,
            elapsed_steps=self._steps,
        )

    def _succeeds(self) -> bool:
        if self._succeeded_at is None:
            return False
        return self._lose_after is None or self._steps < self._succeeded_at + self._lose_after

    def observe(self, cameras: Sequence[str] | None = None) -> SimulatorObservation:
        names = self.cameras if cameras is None else tuple(cameras)
        self.rendered.append(names)
        shape = (self.settings.camera_height, self.settings.camera_width, 3)
        images = {name: np.full(shape, 10 * (1 + self.cameras.index(name)), np.uint8) for name in names}
        qpos = np.arange(9, dtype=np.float32) / 10
        qpos[0] = self._way
        return SimulatorObservation(images, {"agent/qpos": qpos, "extra/tcp_pose": np.ones(7, np.float32)})

    def film(self, height: int, width: int) -> np.ndarray:
        self.filmed.append(self._steps)
        return np.full((height, width, 3), 10 * (self._steps % 25), np.uint8)

    def close(self) -> None:
        self.closed = True
