"""Robots that the model knows in units of its own: to those units and back.

ALOHA's grippers are reported as positions along a rail and commanded as angles of the follower's motor, while Pi0 was
trained on the motor's angle, so state and actions are converted differently. Facts and constants are openpi's, which
took them from the ALOHA code and from Interbotix's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy_protocol.spec import Robot
from training.pi05.transforms.chain import Chain, State, Vectors

__all__ = ["AlohaActions", "AlohaState", "robot_actions", "robot_state"]

_SIGNS = np.array([1, -1, -1, 1, 1, 1, 1] * 2, dtype=np.float64)
"""Shoulder and elbow turn the other way round in the model."""
_GRIPPERS = (6, 13)

_RAIL = (0.01844, 0.05800)
"""Follower's finger position in metres, closed and open: 0 and 1 on the wire."""
_ARM, _HORN = 0.036, 0.022
"""Crank of the gripper, in metres: connecting arm and motor horn."""
_MODEL_ANGLE = (0.5476, 1.6296)
"""Motor angle in radians that the model knows as 0 and 1 (encoder counts 2405 and 3110 of 4096, zero at 2048)."""
_MOTOR_ANGLE = (-0.6213, 1.4910)
"""Motor angle in radians that is commanded as 0 and 1."""


def _to_unit(x: np.ndarray, interval: tuple[float, float]) -> np.ndarray:
    low, high = interval
    return (x - low) / (high - low)


def _from_unit(x: np.ndarray, interval: tuple[float, float]) -> np.ndarray:
    low, high = interval
    return x * (high - low) + low


@dataclass(frozen=True)
class AlohaState:
    """ALOHA's state, (…, 14): signs of joints, and the grippers' rail position to the motor's angle.

    Invertible where the crank can be: a rail position of -0.11 to 1, in units of the wire.
    """

    def __call__(self, x: Vectors, state: State | None = None) -> Vectors:
        x = x * _SIGNS
        position = _from_unit(x[..., _GRIPPERS], _RAIL)
        sine = (_HORN**2 + position**2 - _ARM**2) / (2 * _HORN * position)
        x[..., _GRIPPERS] = _to_unit(np.arcsin(np.clip(sine, -1.0, 1.0)), _MODEL_ANGLE)
        return x

    def inverse(self, x: Vectors, state: State | None = None) -> Vectors:
        x = x * _SIGNS
        sine = np.sin(_from_unit(x[..., _GRIPPERS], _MODEL_ANGLE))
        position = _HORN * sine + np.sqrt(_ARM**2 - _HORN**2 * (1 - sine**2))
        x[..., _GRIPPERS] = _to_unit(position, _RAIL)
        return x


@dataclass(frozen=True)
class AlohaActions:
    """ALOHA's actions, (…, 14): signs of joints, and the grippers' commands to the model's angle.

    The model's own commands are in radians already, so openpi shifts them but does not scale them.
    """

    def __call__(self, x: Vectors, state: State | None = None) -> Vectors:
        x = x * _SIGNS
        x[..., _GRIPPERS] = _from_unit(x[..., _GRIPPERS], _MOTOR_ANGLE) - _MODEL_ANGLE[0]
        return x

    def inverse(self, x: Vectors, state: State | None = None) -> Vectors:
        x = x * _SIGNS
        x[..., _GRIPPERS] = _to_unit(x[..., _GRIPPERS] + _MODEL_ANGLE[0], _MOTOR_ANGLE)
        return x


def robot_state(robot: Robot) -> Chain:
    """The conversion of a robot's state to the model's units; empty for robots that need none."""
    return Chain((AlohaState(),) if robot == "aloha" else ())


def robot_actions(robot: Robot) -> Chain:
    """The conversion of a robot's actions to the model's units; empty for robots that need none."""
    return Chain((AlohaActions(),) if robot == "aloha" else ())
