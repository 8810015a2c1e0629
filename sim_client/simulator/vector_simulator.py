"""Many copies of one ManiSkill environment, stepped together on a GPU and rendered only on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Float32

from policy_protocol.errors import did_you_mean
from sim_client.errors import RenderingUnavailable, SimulationError
from sim_client.simulator.environment import make_environment
from sim_client.simulator.partial_resets import require_partial_resets
from sim_client.simulator.random_draws import DrawnOnCpu, refuse_shared_scenes
from sim_client.simulator.sensing import read_flags, read_state, render, stop_observing
from sim_client.simulator.types import SimulationSettings
from sim_client.simulator.vector_types import StepResults, VectorObservation

__all__ = ["VectorSimulator"]


class VectorSimulator:
    """`num_envs` robots, each at its own copy of the task. With one of them on the CPU it does what `Simulator` does.

    Where an episode starts depends on its seed alone, neither on its place nor on the seeds beside it, and up to
    rounding it starts there on the CPU, too. ManiSkill's own batched reset differs: it draws all starts from one
    generator that the first seed seeds. What physics then makes of it is repeatable to the bit on the CPU only.

    Args:
        settings: the environment.
        num_envs: how many copies; more than one only with `sim_backend="gpu"`.

    Raises:
        InvalidOption: the settings do not go with so many environments.
        SimulationError: or one of its kinds, when the environment cannot be made as asked.

    Attributes:
        settings: as given.
        num_envs: as given.
        cameras: names of the cameras, in ManiSkill's order; empty without rendering.
        action_low: smallest action of one environment, "action_dim".
        action_high: largest action of one environment, "action_dim". ManiSkill clips to these bounds.
        state_sources: width of every entry of `VectorObservation.state`.
    """

    cameras: tuple[str, ...]
    action_low: Float32[np.ndarray, "action_dim"]
    action_high: Float32[np.ndarray, "action_dim"]
    state_sources: Mapping[str, int]

    def __init__(self, settings: SimulationSettings, num_envs: int) -> None:
        self.settings, self.num_envs = settings, num_envs
        self._environment = make_environment(settings, num_envs)
        stop_observing(self._environment)
        self.cameras = tuple(self._environment.scene.sensors) if settings.render_backend != "none" else ()
        space = self._environment.single_action_space
        self.action_low = np.asarray(space.low, np.float32)
        self.action_high = np.asarray(space.high, np.float32)
        self._begin()
        self.state_sources = {source: values.shape[1] for source, values in self._state().items()}

    def reset(self, seeds: Sequence[int]) -> None:
        """Start an episode in every environment, each the one that its own seed determines.

        The scenes are built anew, as by `Simulator.reset`, with a generator for each. Then each is reset by itself.

        Args:
            seeds: one for each environment.

        Raises:
            SimulationError: SAPIEN failed, here as in `step` and `observe`.
        """
        seeds = [int(seed) for seed in seeds]
        if len(seeds) != self.num_envs:
            raise SimulationError(f"There are {len(seeds)} seeds for {self.num_envs} environments.")
        with self._failing_by_name("resetting"), DrawnOnCpu():
            self._environment.reset(seed=seeds, options={"reconfigure": True})
            for env, seed in enumerate(seeds):
                self._place(env, seed)

    def step(self, actions: Float[np.ndarray, "env action_dim"]) -> StepResults:
        """Apply one action in every environment for one control period: physics only.

        Raises:
            SimulationError: the actions have the wrong shape or are not finite.
        """
        self._require_actions(actions)
        with self._failing_by_name("stepping"):
            *_, self._info = self._environment.step(torch.from_numpy(np.asarray(actions, np.float32)))
            flags = read_flags(self._info, self.num_envs)
            elapsed = self._environment.elapsed_steps.cpu().numpy().copy()
        truncated = elapsed >= self.settings.max_episode_steps
        return StepResults(flags.pop("success"), flags, truncated, elapsed)

    def observe(self, cameras: Sequence[str] | None = None, envs: Sequence[int] | None = None) -> VectorObservation:
        """The state now, with images rendered now, once for all environments.

        Args:
            cameras: which to render; None for all, `()` for the state alone, which costs little.
            envs: whose to return, in this order; None for all.

        Raises:
            SimulationError: there is no such camera.
        """
        names = self.cameras if cameras is None else tuple(cameras)
        rows = list(range(self.num_envs) if envs is None else envs)
        self._require_cameras(names)
        with self._failing_by_name("observing"):
            images = render(self._environment, names, rows) if names else {}
            return VectorObservation(images, {source: values[rows] for source, values in self._state().items()})

    def close(self) -> None:
        """Free the scenes. The simulator is of no use afterwards."""
        self._environment.close()

    def _begin(self) -> None:
        """Refuse a task that cannot be measured, or not in several environments at once."""
        try:
            if self.num_envs > 1:
                refuse_shared_scenes(self._environment, self.settings.env_id)
            self.reset(range(self.num_envs))
            if self.num_envs > 1:
                require_partial_resets(self._environment, self.settings.env_id, lambda: self._place(0, self.num_envs))
            self._require_success()
        except SimulationError:
            self.close()
            raise

    def _place(self, env: int, seed: int) -> None:
        """Start one environment's episode and leave the others alone.

        Every generator gets this seed: tasks use PyTorch's, environment 0's or the environment's own as they please.
        """
        only = torch.tensor([env], device=self._environment.device)
        _, self._info = self._environment.reset(seed=[seed] * self.num_envs, options={"env_idx": only})

    @contextmanager
    def _failing_by_name(self, doing: str) -> Iterator[None]:
        """SAPIEN reports a lost GPU, full memory and the like as bare RuntimeErrors: they void the episodes."""
        try:
            yield
        except RuntimeError as error:
            raise SimulationError(
                f"The simulator failed while {doing} {self.settings.env_id} in {self.num_envs} environments: {error}"
            ) from error

    def _state(self) -> dict[str, Float32[np.ndarray, "env dim"]]:
        return read_state(self._environment, self._info)

    def _require_success(self) -> None:
        if "success" not in read_flags(self._info, self.num_envs):
            raise SimulationError(
                f"{self.settings.env_id} reports no success, so there is nothing to measure. Pass another --env; "
                "`sim-client tasks` lists the project's own."
            )

    def _require_actions(self, actions: Float[np.ndarray, "env action_dim"]) -> None:
        expected = (self.num_envs, *self.action_low.shape)
        if np.shape(actions) != expected:
            raise SimulationError(
                f"The actions have shape {np.shape(actions)}, but {self.num_envs} environments with the control mode "
                f"{self.settings.control_mode!r} of {self.settings.env_id} take {expected}."
            )
        wrong = np.flatnonzero(~np.isfinite(actions).all(axis=1))
        if wrong.size:
            raise SimulationError(
                f"The action of environment {wrong[0]} holds a number that is not finite: {actions[wrong[0]].tolist()}."
            )

    def _require_cameras(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.cameras:
                continue
            if not self.cameras:
                raise RenderingUnavailable(
                    f"The camera {name!r} cannot be rendered with render backend 'none'. "
                    f"Pass --render-backend {self.settings.sim_backend}."
                )
            raise SimulationError(
                f"{self.settings.env_id} with the robot {self.settings.robot_uids!r} has no camera {name!r}."
                f"{did_you_mean(name, self.cameras)}"
            )
