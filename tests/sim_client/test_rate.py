"""Rates and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from sim_client.statistics.rate import Rate


def test_a_rate_reads_as_k_of_n_with_its_wilson_interval():
    assert str(Rate(7, 20)) == "7/20 = 35% [18%, 57%]"


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_agrees_with_newcombes_published_examples(successes, episodes, low, high):
    assert Rate(successes, episodes).interval == pytest.approx((low, high), abs=5e-5)


def test_without_episodes_nothing_is_known():
    rate = Rate(0, 0)
    assert (rate.value, rate.interval, str(rate)) == (None, (0.0, 1.0), "0/0")


def test_more_successes_than_episodes_are_impossible():
    with pytest.raises(ValueError, match="3 successes in 2 episodes are impossible"):
        Rate(3, 2)


@pytest.mark.parametrize("episodes", [10, 20, 50])
def test_the_interval_holds_the_true_rate_in_95_of_100_runs(episodes):
    """Exactly, over true rates from 2% to 98%. Single rates come to 91%, as those of every interval that short do."""
    counts = np.arange(episodes + 1)
    low, high = np.array([Rate(int(count), episodes).interval for count in counts]).T
    covered = [
        binom.pmf(counts, episodes, true)[(low <= true) & (true <= high)].sum() for true in np.linspace(0.02, 0.98, 97)
    ]
    assert np.mean(covered) >= 0.95
    assert min(covered) >= 0.91
