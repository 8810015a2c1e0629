"""What a robot is told while it waits for the policy: stay where you are, and keep what you hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

__all__ = ["hold_action"]

_GRIPPER, _VELOCITY = "gripper", "vel"
"""What an action dimension's name holds; a control mode's name says `vel` too."""


def hold_action(
    control_mode: str, names: Sequence[str], last: Float32[np.ndarray, "action_dim"]
) -> Float32[np.ndarray, "action_dim"]:
    """The action that holds still.

    A movement or a speed (`pd_ee_delta_pose`, `pd_joint_vel`) becomes zero. An absolute target (`pd_joint_pos`) is
    given once more, and so is the gripper's, which is a position in every control mode of ManiSkill's arms.

    Args:
        control_mode: ManiSkill's name.
        names: of the action's dimensions.
        last: the action that ran last.
    """
    absolute = not any(word in control_mode for word in ("delta", "joint_vel"))
    kept = [_GRIPPER in name.lower() or (absolute and _VELOCITY not in name.lower()) for name in names]
    return np.where(kept, last, np.float32(0))
