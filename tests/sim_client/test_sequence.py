"""Looking at the rate after every episode, and stopping at will."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sim_client.statistics.rate import Rate
from sim_client.statistics.sequence import ConfidenceSequence, anytime_interval

Interval = Callable[[int, int], tuple[float, float]]


def ever_left_out(interval: Interval, true: float, episodes: int) -> float:
    """Exactly: how often at least one of the intervals after 1, 2, … episodes misses the true rate.

    The worst stopping rule stops at that one.
    """
    chance = {0: 1.0}  # of each number of successes that was never missed so far; they stand side by side
    for n in range(1, episodes + 1):
        grown = dict.fromkeys([*chance, max(chance) + 1], 0.0)
        for successes, p in chance.items():
            grown[successes] += (1 - true) * p
            grown[successes + 1] += true * p
        chance = grown
        for edge in (min, max):
            while not (bounds := interval(edge(chance), n))[0] <= true <= bounds[1]:
                del chance[edge(chance)]
    return 1 - sum(chance.values())


@pytest.mark.parametrize("true", [0.05, 0.3, 0.5, 0.9])
def test_at_whatever_moment_one_stops_within_500_episodes_the_true_rate_is_inside(true):
    """In 95% of runs at least; the check is not idle, as something is lost."""
    assert 0.005 < ever_left_out(anytime_interval, true, 500) <= 0.05


def test_a_fixed_n_interval_that_is_peeked_at_misses_far_more_often():
    assert ever_left_out(lambda successes, n: Rate(successes, n).interval, 0.5, 100) > 0.25


def test_random_runs_that_stop_when_they_are_sure_hold_the_true_rate():
    random, missed = np.random.default_rng(1), 0
    for _ in range(100):
        sequence, true = ConfidenceSequence(), random.uniform(0.05, 0.95)
        while sequence.width > 0.35 and sequence.episodes < 500:
            sequence.add(bool(random.random() < true))
        low, high = sequence.interval
        assert high - low <= 0.35
        missed += not low <= true <= high
    assert missed <= 5


def test_what_was_ruled_out_stays_ruled_out():
    sequence, before = ConfidenceSequence(), (0.0, 1.0)
    for success in [True] * 30 + [False] * 30 + [True] * 30:
        sequence.add(success)
        low, high = sequence.interval
        assert before[0] <= low <= high <= before[1]
        before = (low, high)
    assert (sequence.successes, sequence.episodes) == (60, 90)


def test_before_the_first_episode_nothing_is_known():
    sequence = ConfidenceSequence()
    assert (sequence.interval, sequence.width) == ((0, 1), 1)


def test_successes_and_failures_are_mirror_images():
    for successes in range(21):
        low, high = anytime_interval(successes, 20)
        assert anytime_interval(20 - successes, 20) == pytest.approx((1 - high, 1 - low))
        assert low <= successes / 20 <= high


def test_the_price_of_looking_is_a_wider_interval():
    """At 80 of 100: 24 points wide where the interval of a number fixed in advance has 16."""
    low, high = anytime_interval(80, 100)
    fixed_low, fixed_high = Rate(80, 100).interval
    assert low < fixed_low < fixed_high < high
    assert high - low == pytest.approx(0.24, abs=0.005)
    assert fixed_high - fixed_low == pytest.approx(0.16, abs=0.005)
