"""Whether a task can start one environment's episode and leave the others alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.structs.pose import Pose

from sim_client.errors import SimulationError

__all__ = ["require_partial_resets"]


def require_partial_resets(environment: BaseEnv, env_id: str, reset_first: Callable[[], None]) -> None:
    """Check that a reset of environment 0 changes no row but the first of what the task remembers.

    A task must write its variables by `env_idx`. One that assigns them whole (`self.goal = torch.rand(b)`) would judge
    every environment by the goal of the last that was reset, without any error.

    Args:
        environment: with at least two copies, all of them reset.
        reset_first: resets environment 0 by a seed that it does not have.

    Raises:
        SimulationError: the task does not keep them apart.
    """
    before = _rows(environment)
    try:
        reset_first()
    except Exception as error:  # whatever a task raises that has never been reset in part
        raise _refusal(env_id, f"{type(error).__name__}: {error}") from error
    after = _rows(environment)
    for name, rows in before.items():
        if name not in after or after[name].shape != rows.shape or not _equal(after[name][1:], rows[1:]):
            raise _refusal(env_id, f"its variable {name!r} is not kept for each")


def _rows(environment: BaseEnv) -> Mapping[str, torch.Tensor]:
    """The task's variables with a row for each environment."""
    values = {name: value.raw_pose if isinstance(value, Pose) else value for name, value in vars(environment).items()}
    return {
        name: value.clone()
        for name, value in values.items()
        if isinstance(value, torch.Tensor) and value.shape[:1] == (environment.num_envs,)
    }


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())  # NaN marks what is not known yet


def _refusal(env_id: str, reason: str) -> SimulationError:
    return SimulationError(
        f"{env_id} cannot start one of several environments by itself ({reason}), so an episode would depend on those "
        "that run beside it. Pass --sim-backend cpu.",
        field="--sim-backend",
    )
