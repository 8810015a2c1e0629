"""One ManiSkill environment, stepped without rendering and rendered only on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from policy_protocol.errors import did_you_mean
from sim_client.errors import RenderingUnavailable, SimulationError
from sim_client.simulator.environment import make_environment
from sim_client.simulator.film_camera import FilmCamera
from sim_client.simulator.sensing import read_flags, read_state, render, stop_observing
from sim_client.simulator.types import SimulationSettings, SimulatorObservation, StepResult

__all__ = ["Simulator"]


class Simulator:
    """A robot and its task.

    Rendering is most of the cost of a step on a CPU (two cameras: 0.2 s against 10 ms of physics), so `step` never
    renders and `observe` renders exactly then. Frames and joints are bit-identical to stepping ManiSkill plainly.

    An episode is a function of its seed and its actions alone: every reset rebuilds the scene (0.2 s). ManiSkill's
    own reset keeps contacts of the episode before, which moved StackCube's cubes by centimetres in one of five seeds.

    Args:
        settings: the environment.

    Raises:
        SimulationError: or one of its kinds, when the environment cannot be made as asked.

    Attributes:
        settings: as given.
        cameras: names of the cameras, in ManiSkill's order; empty without rendering.
        action_low: smallest action, "action_dim".
        action_high: largest action, "action_dim". ManiSkill clips to these bounds.
        state_sources: width of every entry of `SimulatorObservation.state`.
    """

    cameras: tuple[str, ...]
    action_low: Float32[np.ndarray, "action_dim"]
    action_high: Float32[np.ndarray, "action_dim"]
    state_sources: Mapping[str, int]

    def __init__(self, settings: SimulationSettings) -> None:
        self.settings = settings
        self._environment = make_environment(settings)
        self._film_camera: FilmCamera | None = None
        stop_observing(self._environment)
        self.cameras = tuple(self._environment.scene.sensors) if settings.render_backend != "none" else ()
        space = self._environment.single_action_space
        self.action_low = np.asarray(space.low, np.float32)
        self.action_high = np.asarray(space.high, np.float32)
        self.reset(seed=0)
        self._require_success()
        self.state_sources = {source: value.size for source, value in self._state().items()}

    def reset(self, seed: int) -> None:
        """Start the episode that `seed` determines.

        Raises:
            SimulationError: SAPIEN failed, here as in `step` and `observe`.
        """
        with self._failing_by_name("resetting"):
            _, self._info = self._environment.reset(seed=seed, options={"reconfigure": True})
        self._film_camera = None

    def step(self, action: Float[np.ndarray, "action_dim"]) -> StepResult:
        """Apply one action for one control period: physics only.

        Raises:
            SimulationError: the action has the wrong shape or is not finite.
        """
        self._require_action(action)
        with self._failing_by_name("stepping"):
            *_, self._info = self._environment.step(torch.from_numpy(np.asarray(action, np.float32)))
        elapsed = int(self._environment.elapsed_steps[0])
        flags = self._flags()
        return StepResult(
            success=flags.pop("success"),
            stages=flags,
            truncated=elapsed >= self.settings.max_episode_steps,
            elapsed_steps=elapsed,
        )

    def observe(self, cameras: Sequence[str] | None = None) -> SimulatorObservation:
        """The state now, with images rendered now.

        Args:
            cameras: which to render; None for all, `()` for the state alone, which costs nothing.

        Raises:
            SimulationError: there is no such camera.
        """
        names = self.cameras if cameras is None else tuple(cameras)
        self._require_cameras(names)
        with self._failing_by_name("observing"):
            return SimulatorObservation(images=self._render(names) if names else {}, state=self._state())

    def film(self, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
        """The scene now as an onlooker sees it, with goals that are hidden from the policy.

        Neither what `observe` shows nor the physics is changed by it.

        Raises:
            SimulationError: the task has no camera for onlookers, or nothing is rendered at all.
        """
        if self.settings.render_backend == "none":
            raise RenderingUnavailable("Render backend 'none' films nothing. Pass --render-backend cpu.")
        with self._failing_by_name("filming"):
            if self._film_camera is None or self._film_camera.size != (height, width):
                self._film_camera = FilmCamera(self._environment, height, width)
            return self._film_camera.shoot()

    def close(self) -> None:
        """Free the scene. The simulator is of no use afterwards."""
        self._environment.close()

    @contextmanager
    def _failing_by_name(self, doing: str) -> Iterator[None]:
        """SAPIEN reports a lost GPU, full memory and the like as bare RuntimeErrors: they void the episode."""
        try:
            yield
        except RuntimeError as error:
            raise SimulationError(f"The simulator failed while {doing} {self.settings.env_id}: {error}") from error

    def _require_success(self) -> None:
        if "success" not in self._flags():
            self.close()
            raise SimulationError(
                f"{self.settings.env_id} reports no success, so there is nothing to measure. Pass another --env; "
                "`sim-client tasks` lists the project's own."
            )

    def _state(self) -> dict[str, Float32[np.ndarray, "dim"]]:
        return {source: values[0] for source, values in read_state(self._environment, self._info).items()}

    def _render(self, cameras: Sequence[str]) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
        return {name: images[0] for name, images in render(self._environment, cameras, [0]).items()}

    def _flags(self) -> dict[str, bool]:
        return {flag: bool(holds[0]) for flag, holds in read_flags(self._info, 1).items()}

    def _require_action(self, action: Float[np.ndarray, "action_dim"]) -> None:
        if np.shape(action) != self.action_low.shape:
            raise SimulationError(
                f"The action has shape {np.shape(action)}, but the control mode {self.settings.control_mode!r} of "
                f"{self.settings.env_id} takes {self.action_low.shape}."
            )
        if not np.isfinite(action).all():
            raise SimulationError(f"The action holds a number that is not finite: {np.asarray(action).tolist()}.")

    def _require_cameras(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.cameras:
                continue
            if not self.cameras:
                raise RenderingUnavailable(
                    f"The camera {name!r} cannot be rendered with render backend 'none'. Pass --render-backend cpu."
                )
            raise SimulationError(
                f"{self.settings.env_id} with the robot {self.settings.robot_uids!r} has no camera {name!r}."
                f"{did_you_mean(name, self.cameras)}"
            )
