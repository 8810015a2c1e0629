"""The difference between two policies on the same episodes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gammaln

from sim_client.statistics.paired import PairedDifference
from sim_client.statistics.rate import Rate


@pytest.mark.parametrize(
    ("counts", "interval"),
    [
        ((1, 1, 7, 12), (-0.517, -0.026)),  # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850
        ((53, 16, 8, 9), (-0.020, 0.207)),  # Agresti and Min 2005, Statistics in Medicine 24:729
        ((4, 9, 3, 16), (-0.027, 0.390)),  # Tango 1998, Statistics in Medicine 17:891
    ],
)
def test_the_interval_agrees_with_published_examples(counts, interval):
    """They subtract the second from the first; we the first from the second."""
    low, high = PairedDifference(*counts).interval
    assert (-high, -low) == pytest.approx(interval, abs=5e-4)


@pytest.mark.parametrize(
    ("counts", "p_value"),
    [
        ((20, 12, 2, 16), 0.0129),  # Armitage and Berry 1994, Statistical Methods in Medical Research, p. 127
        ((1, 1, 7, 12), 0.0703),  # Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91
        ((59, 6, 16, 80), 0.0525),
    ],
)
def test_the_exact_mcnemar_test_agrees_with_published_examples(counts, p_value):
    assert PairedDifference(*counts).p_value == pytest.approx(p_value, abs=5e-5)


@pytest.mark.parametrize("episodes", [10, 20, 30])
def test_the_interval_holds_the_true_difference_in_at_least_93_of_100_runs(episodes):
    """Exactly, for rates from 5% to 95% and outcomes from independent to as alike as the rates allow."""
    tables, inside = _all_tables(episodes)
    weights = gammaln(episodes + 1) - gammaln(tables + 1).sum(1)
    grid = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
    covered = []
    for first in grid:
        for second in grid:
            for alike in (0.0, 0.5, 0.9):
                both = first * second + alike * (min(first, second) - first * second)
                shares = np.array([both, first - both, second - both, 1 - first - second + both])
                chance = np.exp(weights + tables @ np.log(np.maximum(shares, 1e-300)))
                covered.append(chance[inside(second - first)].sum())
    assert min(covered) >= 0.93
    assert np.mean(covered) >= 0.95


def _all_tables(episodes):
    """Every table (table, 4) of so many episodes, and which of their intervals hold a difference."""
    rest = range(episodes + 1)
    pairs = [(lost, won) for lost in rest for won in rest if lost + won <= episodes]
    bounds = {
        (lost, won): PairedDifference(0, lost, won, episodes - lost - won).interval for lost, won in pairs
    }  # how the other episodes went does not matter
    tables = [(both, lost, won, episodes - both - lost - won) for lost, won in pairs for both in rest]
    tables = [table for table in tables if table[3] >= 0]
    low, high = np.array([bounds[table[1], table[2]] for table in tables]).T
    return np.array(tables, float), lambda true: (low <= true + 1e-9) & (true - 1e-9 <= high)


def test_where_the_test_tells_two_policies_apart_the_interval_does_not_hold_zero():
    for episodes in (6, 25):
        for lost in range(episodes + 1):
            for won in range(episodes + 1 - lost):
                difference = PairedDifference(0, lost, won, episodes - lost - won)
                low, high = difference.interval
                assert difference.p_value >= 0.05 or low > 0 or high < 0


def test_a_policy_differs_from_itself_by_nothing():
    difference = PairedDifference.of([(True, True)] * 7 + [(False, False)] * 13)
    assert (difference.value, difference.p_value) == (0, 1)
    low, high = difference.interval
    assert low == pytest.approx(-high)


def test_exchanging_the_policies_turns_the_difference_round():
    one, other = PairedDifference(5, 2, 9, 4), PairedDifference(5, 9, 2, 4)
    assert (one.value, one.p_value) == (-other.value, other.p_value)
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))


def test_episodes_are_counted_by_who_succeeded():
    difference = PairedDifference.of([(True, True), (True, False), (False, True), (False, True), (False, False)])
    assert difference == PairedDifference(1, 1, 2, 1)
    assert (difference.first, difference.second) == (Rate(2, 5), Rate(3, 5))
    assert difference.value == pytest.approx(0.2)


@pytest.mark.parametrize("counts", [(0, 0, 5, 0), (0, 5, 0, 0)])
def test_a_clean_sweep_reaches_the_end_of_the_scale(counts):
    low, high = PairedDifference(*counts).interval
    assert 1 in (-low, high)
    assert min(abs(low), high if high > 0 else -high) == pytest.approx(0.131, abs=5e-4)


def test_without_episodes_nothing_is_known():
    nothing = PairedDifference.of([])
    assert (nothing.value, nothing.interval, nothing.p_value) == (None, (-1, 1), 1)
    assert nothing.more_episodes(0.05) is None


def test_so_many_more_episodes_make_the_interval_as_narrow_as_promised():
    difference = PairedDifference(5, 2, 9, 4)
    more = difference.more_episodes(0.05)
    assert more > 0
    times = (20 + more) / 20
    low, high = PairedDifference(*(round(times * count) for count in (5, 2, 9, 4))).interval
    assert (high - low) / 2 == pytest.approx(0.05, abs=2e-4)
    assert difference.more_episodes(0.5) == 0
