"""Steps before the first move in which nothing happens are left out, and nothing that a policy must do with them."""

from __future__ import annotations

import numpy as np

from training.data.conversion.idle_start import idle_start


def rows(*positions: float) -> np.ndarray:
    return np.array(positions)[:, None]


def idle(arm: np.ndarray, fingers: np.ndarray) -> list[int]:
    """The hand is where the arm's one joint is."""
    return np.flatnonzero(idle_start(np.concatenate([arm, fingers], axis=1), arm)).tolist()


def test_steps_in_which_nothing_moves_before_the_first_move_are_idle() -> None:
    assert idle(rows(0, 0, 0, 0, 0.1, 0.2), rows(1, 1, 1, 1, 1, 1)) == [1, 2]


def test_the_first_step_stays_for_an_evaluation_meets_it_first() -> None:
    assert idle(rows(0, 0, 0.1), rows(1, 1, 1)) == []


def test_steps_in_which_the_gripper_moves_stay() -> None:
    """What is left of a hand that closes, waits and sets off: it closes, then sets off."""
    assert idle(rows(0, 0, 0, 0, 0, 0.1), rows(1, 0.5, 0.2, 0.2, 0.2, 0.2)) == [2, 3]


def test_a_rest_on_the_way_or_at_the_end_is_no_idle_start() -> None:
    assert idle(rows(0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2), rows(*[1] * 7)) == []


def test_the_noise_of_a_simulator_is_no_motion() -> None:
    assert idle(rows(0, 1e-6, 0, 1e-6, 3e-4), rows(1, 1, 1, 1, 1)) == [1, 2]


def test_a_robot_that_never_moves_is_idle_but_for_its_first_step() -> None:
    assert idle(rows(0, 0, 0), rows(1, 1, 1)) == [1]
