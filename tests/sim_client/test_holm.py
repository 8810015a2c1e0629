"""Several tests at once."""

from __future__ import annotations

import numpy as np
import pytest

from sim_client.statistics.holm import holm


def test_the_correction_agrees_with_a_worked_example():
    """Four tests: 4 x 0.005, 3 x 0.01, then 2 x 0.03; 1 x 0.04 may not be below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_one_test_alone_is_not_corrected():
    assert holm([0.04]) == (0.04,)
    assert holm([]) == ()


def test_no_p_value_is_above_1():
    assert holm([0.6, 0.9]) == (1, 1)


def test_among_equal_policies_a_difference_is_seen_in_at_most_5_of_100_comparisons():
    """Five independent tests where nothing is to be found: one by one they would cry wolf in 23% of comparisons."""
    p_values = np.random.default_rng(0).random((4000, 5))
    assert np.mean(p_values.min(1) < 0.05) > 0.2
    assert np.mean([min(holm(list(row))) < 0.05 for row in p_values]) <= 0.055
