"""The difference between two policies that ran different episodes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from sim_client.statistics.rate import Rate
from sim_client.statistics.unpaired import UnpairedDifference


@pytest.mark.parametrize(
    ("one", "other", "interval"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),  # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((0, 10), (0, 10), (-0.2775, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0000)),
        ((10, 10), (0, 10), (0.6075, 1.0000)),
    ],
)
def test_the_interval_agrees_with_newcombes_published_examples(one, other, interval):
    difference = UnpairedDifference(Rate(*other), Rate(*one))
    assert difference.interval == pytest.approx(interval, abs=5e-5)


def test_the_test_is_fishers_of_the_tea_that_a_lady_tasted():
    """Fisher 1935, The Design of Experiments: 3 of 4 cups right on either side is what chance does in 34 of 70."""
    assert UnpairedDifference(Rate(1, 4), Rate(3, 4)).p_value == pytest.approx(34 / 70)


@pytest.mark.parametrize("episodes", [(10, 10), (20, 20), (10, 30)])
def test_the_interval_holds_the_true_difference_in_95_of_100_runs(episodes):
    """Exactly, for rates from 5% to 95%. Single pairs of rates come to 92%, at the edges of the grid."""
    counts = [np.arange(number + 1) for number in episodes]
    low, high = np.array(
        [
            [UnpairedDifference(Rate(int(x), episodes[0]), Rate(int(y), episodes[1])).interval for y in counts[1]]
            for x in counts[0]
        ]
    ).transpose(2, 0, 1)
    grid = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
    covered = []
    for first in grid:
        for second in grid:
            chance = np.outer(*(binom.pmf(x, n, p) for x, n, p in zip(counts, episodes, (first, second), strict=True)))
            true = second - first
            covered.append(chance[(low <= true + 1e-9) & (true - 1e-9 <= high)].sum())
    assert np.mean(covered) >= 0.95
    assert min(covered) >= 0.92


def test_where_the_test_tells_two_policies_apart_the_interval_does_not_hold_zero():
    for first in range(16):
        for second in range(26):
            difference = UnpairedDifference(Rate(first, 15), Rate(second, 25))
            low, high = difference.interval
            assert difference.p_value >= 0.05 or low > 0 or high < 0


def test_equal_rates_differ_by_nothing():
    difference = UnpairedDifference(Rate(7, 20), Rate(7, 20))
    assert (difference.value, difference.p_value) == (0, 1)


def test_without_episodes_nothing_is_known():
    nothing = UnpairedDifference(Rate(0, 0), Rate(3, 4))
    assert (nothing.value, nothing.interval, nothing.p_value) == (None, (-1, 1), 1)
    assert nothing.more_episodes(0.05) is None


def test_so_many_more_episodes_of_each_make_the_interval_as_narrow_as_promised():
    more = UnpairedDifference(Rate(10, 20), Rate(20, 40)).more_episodes(0.05)
    low, high = UnpairedDifference(
        Rate(round((20 + more) / 2), 20 + more), Rate(round((40 + more) / 2), 40 + more)
    ).interval
    assert (high - low) / 2 == pytest.approx(0.05, abs=2e-4)
    assert UnpairedDifference(Rate(10, 20), Rate(20, 40)).more_episodes(0.5) == 0
