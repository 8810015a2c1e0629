"""What every side of `evaluation.py` runs: one task, one robot, the same actions. numpy only."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ACTION_NAMES",
    "CAMERAS",
    "CONTROL_FREQ",
    "CONTROL_MODE",
    "ENV_ID",
    "PROMPT",
    "ROBOT",
    "SIM_FREQ",
    "STATE_WIDTH",
    "actions_of",
    "hash_of",
]

ENV_ID, ROBOT, CONTROL_MODE = "StackCube-v1", "panda_wristcam", "pd_ee_delta_pose"
SIM_FREQ, CONTROL_FREQ = 100, 20
CAMERAS = {"observation/image": "base_camera", "observation/wrist_image": "hand_camera"}
"""Wire key -> ManiSkill's camera."""
STATE_WIDTH = 8
"""Of `agent/qpos`: seven joints and one finger."""
PROMPT = "Pick up a red cube and stack it on top of a green cube and let go of the cube without it falling"
ACTION_NAMES = ("delta_x", "delta_y", "delta_z", "delta_rx", "delta_ry", "delta_rz", "gripper")
_REACH = 0.5
"""Half of what the controller takes in a step."""


def actions_of(seed: int, steps: int) -> NDArray[np.float32]:
    """(steps, 7): the arm sways slowly, each dimension in a period of its own of 1 to 4 s; a function of the seed."""
    draw, width = np.random.default_rng(seed), len(ACTION_NAMES)
    period, phase = draw.uniform(1, 4, width), draw.uniform(0, 2 * np.pi, width)
    angle = 2 * np.pi * np.arange(steps)[:, None] / (CONTROL_FREQ * period) + phase
    return (_REACH * np.sin(angle)).astype(np.float32)


def hash_of(actions: NDArray[np.float32]) -> str:
    """The same as in the records of `sim-client`."""
    return hashlib.blake2b(np.asarray(actions, np.float32).tobytes(), digest_size=8).hexdigest()
