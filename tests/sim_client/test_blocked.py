"""A hand that is told to move and stands still is found, and nothing else is taken for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim_client.collect import CollectionRequest
from sim_client.collect.attempt import attempt
from sim_client.collect.blocked import is_blocked
from sim_client.errors import PlanningFailed
from sim_client.simulator import Planner, Simulator

STEPS, FREQ = 20, 20


def moving(share: float = 0.4, asked: float = 0.2, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A hand that is asked to move down by so much and goes that share of it."""
    actions = np.zeros((steps, 7), np.float32)
    actions[:, 2] = -asked
    hand = np.zeros((steps + 1, 3), np.float32)
    hand[1:, 2] = np.cumsum(np.full(steps, -asked * 0.1 * share))
    return actions, hand, np.zeros(steps, bool)


def stopped(hand: np.ndarray, start: int, steps: int) -> np.ndarray:
    """The same way, standing still for some steps of it."""
    moved = np.diff(hand, axis=0)
    moved[start : start + steps] = 0.0
    return np.concatenate([hand[:1], hand[0] + np.cumsum(moved, axis=0)])


def test_a_hand_that_follows_is_free() -> None:
    assert not is_blocked(*moving(), FREQ)


def test_a_hand_that_stands_still_for_three_tenths_of_a_second_is_blocked() -> None:
    actions, hand, success = moving()
    assert not is_blocked(actions, stopped(hand, 8, 5), success, FREQ)
    assert is_blocked(actions, stopped(hand, 8, 6), success, FREQ)
    assert is_blocked(actions, stopped(hand, 8, 3), success, control_freq=10)


def test_standing_still_twice_for_half_of_the_time_is_not_blocked() -> None:
    actions, hand, success = moving()
    assert not is_blocked(actions, stopped(stopped(hand, 2, 5), 8, 5), success, FREQ)


def test_a_hand_that_is_told_to_stay_is_not_blocked() -> None:
    assert not is_blocked(*moving(share=0.0, asked=0.04), FREQ)


def test_a_hand_that_slides_sideways_is_not_blocked() -> None:
    """A pushing hand presses on the table and goes on."""
    actions, hand, success = moving(share=0.0)
    hand[:, 0] = np.arange(STEPS + 1) * 0.005
    assert not is_blocked(actions, hand, success, FREQ)


def test_what_follows_success_is_not_looked_at() -> None:
    actions, hand, success = moving()
    success[8] = True  # and false again later: once is enough
    assert not is_blocked(actions, stopped(hand, 8, 12), success, FREQ)
    assert is_blocked(actions, stopped(hand, 2, 6), success, FREQ)


def test_a_beginning_shorter_than_that_tells_nothing() -> None:
    assert not is_blocked(*moving(share=0.0, steps=5), FREQ)


def test_a_hand_that_comes_down_on_the_cube_goes_by_way_of_a_point_above() -> None:
    """Its seed is kept, or the policy would see no cube that lies there."""
    simulator, planner = of_push_cube()
    demonstration = attempt(simulator, planner, 1_000_000, 1, skip_blocked=True)
    assert demonstration.success[-1]
    hand = demonstration.state["extra/tcp_pose"][:, :3]
    assert hand[:, 2].min() < 0.03
    assert not is_blocked(demonstration.actions, hand, demonstration.success, FREQ)
    assert len(demonstration.actions) > 80 > len(planner.plan(1_000_000))
    simulator.close()


def test_without_a_plan_from_above_it_gives_no_demonstration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim_client.simulator.planner.FROM_ABOVE", {})
    simulator, planner = of_push_cube()
    with pytest.raises(PlanningFailed, match=r"^the hand is blocked: told to move, it stands still$"):
        attempt(simulator, planner, 1_000_000, 1, skip_blocked=True)
    behind = attempt(simulator, planner, 1_000_001, 1, skip_blocked=True)
    assert behind.success[-1]
    assert behind.state["extra/tcp_pose"][:, 2].min() < 0.03
    simulator.close()


def of_push_cube() -> tuple[Simulator, Planner]:
    settings = replace(CollectionRequest("PushCube-v1", episodes=1).settings(), render_backend="none")
    return Simulator(settings), Planner(settings)
