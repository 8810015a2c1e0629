"""ManiSkill's motion-planning solutions, as actions of the control mode that a policy learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float32
from mani_skill.examples.motionplanning.panda.run import MP_SOLUTIONS
from mani_skill.trajectory.utils.actions.conversion import from_pd_joint_pos

from policy_protocol.errors import did_you_mean
from sim_client.errors import CollectionError, PlanningFailed
from sim_client.simulator.environment import make_environment
from sim_client.simulator.from_above import FROM_ABOVE
from sim_client.simulator.types import SimulationSettings

__all__ = ["Planner"]

SETTLE_STEPS = 20
"""Steps for which the robot holds still after its last move if the task is not done: a sphere needs to come to rest."""

_NO_LIMIT = 100_000


class Planner:
    """Plans one task's demonstrations: joint positions by mplib, then ManiSkill's conversion. Renders nothing.

    Args:
        settings: the environment in which the actions will be replayed; the robot and both frequencies are kept.

    Raises:
        CollectionError: ManiSkill has no solution of this task.
    """

    def __init__(self, settings: SimulationSettings) -> None:
        if settings.env_id not in MP_SOLUTIONS:
            raise CollectionError(
                f"ManiSkill has no motion-planning solution of {settings.env_id!r}."
                f"{did_you_mean(settings.env_id, MP_SOLUTIONS)}"
            )
        physics = replace(settings, render_backend="none", max_episode_steps=_NO_LIMIT)
        self._solve: Callable[..., Any] = MP_SOLUTIONS[settings.env_id]
        self._from_above: Callable[..., Any] | None = FROM_ABOVE.get(settings.env_id)
        self._planned = _Recorder(make_environment(replace(physics, control_mode="pd_joint_pos")))
        self._converted = _Recorder(make_environment(physics))
        self._control_mode = settings.control_mode

    @property
    def plans_from_above(self) -> bool:
        """Whether the task has a second plan, which comes down beside what the first may run into."""
        return self._from_above is not None

    def plan(self, seed: int, *, from_above: bool = False) -> Float32[np.ndarray, "steps action_dim"]:
        """Actions that solve the episode of `seed`, when replayed from its start without feedback.

        Args:
            seed: of the reset.
            from_above: take the second plan, where the task has one (`sim_client.simulator.from_above`).

        Raises:
            PlanningFailed: there is no path, or its conversion does not end in success.
        """
        joints = self._joint_positions(seed, self._from_above if from_above and self._from_above else self._solve)
        self._planned.reset(seed=seed)
        self._converted.reset(seed=seed)
        from_pd_joint_pos(self._control_mode, joints, self._planned, self._converted)
        if not self._converted.success:
            raise PlanningFailed(f"the plan, converted to {self._control_mode}, does not end in success")
        return np.stack(self._converted.actions)

    def _joint_positions(self, seed: int, solve: Callable[..., Any]) -> Sequence[Float32[np.ndarray, "joint_dim"]]:
        try:
            outcome = solve(self._planned, seed=seed, debug=False, vis=False)
        except Exception as error:  # the solutions let mplib's and numpy's own errors through
            raise PlanningFailed(f"the motion planner stopped with {type(error).__name__}: {error}") from error
        if isinstance(outcome, int) or not self._planned.actions:  # -1: no path
            raise PlanningFailed("the motion planner found no path")
        for _ in range(SETTLE_STEPS):
            if self._planned.success:
                break
            self._planned.step(self._planned.actions[-1])
        return tuple(self._planned.actions)


class _Recorder(gymnasium.Wrapper):
    """Keeps the actions since the last reset, which rebuilds the scene as `Simulator.reset` does."""

    actions: list[Float32[np.ndarray, "action_dim"]]
    success: bool

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the episode of `seed` with an empty record."""
        self.actions, self.success = [], False
        return self.env.reset(seed=seed, options={**(options or {}), "reconfigure": True})

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step with the action rounded to float32, as it is recorded."""
        rounded = np.asarray(action, np.float32).reshape(-1)
        self.actions.append(rounded)
        result = self.env.step(rounded)
        self.success = bool(result[-1]["success"])
        return result
