"""The rows at an episode's start in which the robot does nothing, which a policy should not learn to imitate.

A planner waits for the gripper before it moves the arm. From one frame nobody can tell how long it has waited: a policy
that has seen the wait may wait for ever.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["HAND", "JOINTS", "idle_start"]

JOINTS = "agent/qpos"
HAND = "extra/tcp_pose"
"""Sources of the simulator's observation that decide what moves."""

_STILL = 1e-4
"""Largest change in one step, in radians and metres. In 100 demonstrations of PushCube-v1 the first step that moves
the arm turns a joint by three times as much at least, and a robot that waits is still to a thousandth of this."""


def idle_start(
    joints: Float[np.ndarray, "rows joints"], hand: Float[np.ndarray, "rows pose"]
) -> Bool[np.ndarray, "steps"]:
    """The steps before the hand first moves in which no joint moves either, the gripper's included.

    Where the gripper opens or closes first, those steps stay: an evaluation begins before them, and what is left out
    changes nothing that can be seen. The first step always stays, for an evaluation meets it first.

    Args:
        joints: positions before each action, and after the last.
        hand: the hand's pose likewise.
    """
    stays = ~_moves(joints)
    waits = ~np.logical_or.accumulate(_moves(hand))
    idle = stays & waits
    idle[:1] = False
    return idle


def _moves(rows: Float[np.ndarray, "rows dim"]) -> Bool[np.ndarray, "steps"]:
    return (np.abs(np.diff(rows, axis=0)) > _STILL).any(axis=1)
