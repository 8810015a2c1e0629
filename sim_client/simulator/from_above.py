"""Plans by way of a point above, where ManiSkill's own go down through the cube.

Its solutions of PushCube and PullCube move the hand in one screw motion from the start to beside the cube. Where the
cube lies at the edge of its region that motion meets the cube, and the hand is blocked: 14 of 100 seeds of PushCube-v1
and 19 of 100 of PullCube-v1, nearly all of them there. Without those seeds a policy would see no cube at that edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sapien
from mani_skill.examples.motionplanning.panda.motionplanner import PandaArmMotionPlanningSolver

__all__ = ["FROM_ABOVE", "FromAbove"]

_CLEARANCE = 0.1
"""Height in metres of the point above: the cube is 0.04 high."""


@dataclass(frozen=True)
class FromAbove:
    """A solution with ManiSkill's own signature and its own two poses, and the point above between start and first."""

    touch: float
    """Metres along x from the cube's centre to where the closed hand comes down."""
    end: float
    """Metres along x from the goal's centre to where the hand ends."""

    def __call__(self, env: Any, seed: int | None = None, debug: bool = False, vis: bool = False) -> Any:
        """Act in `env` from its reset; -1 if there is no path."""
        env.reset(seed=seed)
        task = env.unwrapped
        solver = PandaArmMotionPlanningSolver(
            env, debug, vis, task.agent.robot.pose, visualize_target_grasp_pose=vis, print_env_info=False
        )
        solver.close_gripper()
        touch = task.obj.pose.sp.p + np.array([self.touch, 0, 0])
        outcome: Any = -1
        for point in (
            np.array([*touch[:2], _CLEARANCE]),
            touch,
            task.goal_region.pose.sp.p + np.array([self.end, 0, 0]),
        ):
            outcome = solver.move_to_pose_with_screw(sapien.Pose(point, task.agent.tcp.pose.sp.q))
            if isinstance(outcome, int):
                break
        solver.close()
        return outcome


FROM_ABOVE: Mapping[str, FromAbove] = {
    "PushCube-v1": FromAbove(touch=-0.05, end=-0.12),
    "PullCube-v1": FromAbove(touch=0.05, end=0.05),
}
"""By task."""
