"""Open-loop action errors are in the action's units, by dimension, beside those of policies without weights."""

from __future__ import annotations

import numpy as np
import pytest

from training.data import Batch
from training.validation.action_error import ActionErrors, ErrorSums, trivial_policies


def samples(rows, actions, is_pad):
    actions = np.asarray(actions, np.float32)
    return Batch(
        {}, np.zeros((len(rows), 2), np.float32), actions, np.asarray(is_pad), ("",) * len(rows), np.array(rows)
    )


NOW = samples([0, 5, 8], np.full((3, 3, 2), 9.0), np.zeros((3, 3), bool))
"""Row 5 is in the middle of an episode, row 8 begins one."""
BEFORE = samples([0, 4, 7], [[[1, 1]] * 3, [[2, 3]] * 3, [[4, 4]] * 3], [[False] * 3, [False] * 3, [False, True, True]])
MEAN = np.array([0.5, -0.5])
NAMES = ("delta_x", "gripper")


def test_repeating_the_last_action_repeats_the_one_of_the_row_before():
    repeated = trivial_policies(NOW, BEFORE, MEAN, 2, NAMES, "pd_joint_pos")["repeat_last"]
    np.testing.assert_array_equal(repeated[1], [[2, 3], [2, 3]])


def test_nothing_was_done_before_an_episodes_first_row_so_the_mean_is_repeated():
    repeated = trivial_policies(NOW, BEFORE, MEAN, 2, NAMES, "pd_joint_pos")["repeat_last"]
    np.testing.assert_array_equal(repeated[[0, 2]], np.broadcast_to(MEAN, (2, 2, 2)))


def test_holding_still_moves_no_arm_and_keeps_the_grippers_last_command():
    still = trivial_policies(NOW, BEFORE, MEAN, 2, NAMES, "pd_ee_delta_pose")["hold_still"]
    assert still.shape == (3, 2, 2)
    assert not np.any(still[..., 0])
    np.testing.assert_array_equal(still[..., 1], [[-0.5, -0.5], [3, 3], [-0.5, -0.5]])  # the mean where there is none


@pytest.mark.parametrize("names", [("delta_x", "delta_y"), ()])
def test_zero_holds_all_still_where_no_dimension_is_a_gripper(names):
    assert not np.any(trivial_policies(NOW, BEFORE, MEAN, 2, names, "pd_ee_delta_pose")["hold_still"])


def test_zero_holds_still_in_a_delta_mode_alone():
    assert "hold_still" in trivial_policies(NOW, BEFORE, MEAN, 2, NAMES, "pd_joint_delta_pos")
    assert "hold_still" not in trivial_policies(NOW, BEFORE, MEAN, 2, NAMES, "pd_joint_pos")
    assert "hold_still" not in trivial_policies(NOW, BEFORE, MEAN, 2, NAMES, "")


def test_errors_are_means_over_all_executed_steps_that_are_no_padding():
    sums = ErrorSums()
    done, counts = np.zeros((1, 2, 2)), np.array([[True, False]])
    sums.add(done, {"policy": np.array([[[1.0, -2.0], [99, 99]]]), "still": done + 4}, counts)
    sums.add(done, {"policy": np.array([[[3.0, 0.0], [2.0, 1.0]]]), "still": done - 4}, ~counts | counts)
    errors = sums.errors(("x", "y"), "policy")
    np.testing.assert_allclose(errors.policy, [2.0, 1.0])
    np.testing.assert_allclose(errors.baselines["still"], [4.0, 4.0])


def test_the_record_is_one_flat_line_with_the_share_of_the_best_trivial_policy():
    baselines = {"mean_action": np.array([4.0, 2.0, 0.0]), "repeat_last": np.array([2.0, 4.0, 0.0])}
    assert ActionErrors(("x", "y", "z"), np.array([1.0, 0.5, 0.1]), baselines).record() == {
        **{"action_error/x": 1.0, "action_error/y": 0.5, "action_error/z": 0.1},
        **{"mean_action/x": 4.0, "mean_action/y": 2.0, "mean_action/z": 0.0},
        **{"repeat_last/x": 2.0, "repeat_last/y": 4.0, "repeat_last/z": 0.0},
        "against_best": pytest.approx((0.5 + 0.25) / 2),
    }
