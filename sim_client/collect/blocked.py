"""Demonstrations in which something is in the hand's way: it is told to move and stands still.

The motion planner does not see contacts. A hand that comes down on top of a cube keeps being told to go on, by more and
more, and a policy that imitates this learns commands that have nothing to do with what it sees.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float32

__all__ = ["BLOCKED", "is_blocked"]

BLOCKED = "the hand is blocked: told to move, it stands still"
"""The reason that is noted for such a seed."""

_METRES = 0.1
"""What 1.0 in a translation of `pd_ee_delta_pose` asks for in one step (ManiSkill's `panda` controllers)."""
_ASKED_FOR = 0.005
"""Metres in one step from which a command is one to move."""
_FOLLOWED = 0.15
"""Share of it below which the hand stands still. A free hand goes 0.3 to 0.5 of the way in a step."""
_SECONDS = 0.3
"""For so long. Of 100 demonstrations of PushCube-v1, 14 stand still for 0.35 to 0.55 s, two for 0.15 and 0.2 s, and 84
never; of 30 of PullCube-v1, 4 for 0.4 to 0.5 s (all whose hand lies on the cube) and the others for 0.05 s at most."""


def is_blocked(
    actions: Float32[np.ndarray, "steps action_dim"],
    hand: Float32[np.ndarray, "rows 3"],
    success: Bool[np.ndarray, "steps"],
    control_freq: int,
) -> bool:
    """Whether the hand stood still for 0.3 s while it was told to move.

    What happens once the task counts as solved is not looked at: there the hand may press on what it has placed.

    Args:
        actions: of `pd_ee_delta_pose`; the first three are the translation.
        hand: position in metres before each action, and after the last (`extra/tcp_pose[0:3]`).
        success: the task's verdict after each action.
        control_freq: actions per second.
    """
    asked = np.linalg.norm(actions[:, :3], axis=1) * _METRES
    moved = np.linalg.norm(np.diff(hand, axis=0), axis=1)
    before_success = ~np.logical_or.accumulate(success)
    still = before_success & (asked > _ASKED_FOR) & (moved < _FOLLOWED * asked)
    length = math.ceil(_SECONDS * control_freq)
    return bool(len(still) >= length and np.lib.stride_tricks.sliding_window_view(still, length).all(axis=1).any())
