"""Noise on states: as large as asked for, the same for the same step, and nothing else is changed."""

from __future__ import annotations

import numpy as np
import pytest

from training.data import Batch
from training.experiment import ExperimentInvalid, override
from training.experiments import find_experiment
from training.pi05.transforms.normalization import NormStats, normalize
from training.state_noise import StateNoise

ROWS = 4_000
ALL = slice(None)
STATS = NormStats(np.zeros(2), np.array([0.5, 3.0]), np.array([-1.0, 10.0]), np.array([1.0, 30.0]))


def batch(rows=ALL):
    state = np.random.default_rng(0).uniform([-1, 10], [1, 30], (ROWS, 2)).astype(np.float32)[rows]
    count = len(state)
    return Batch(
        {}, state, np.ones((count, 3, 1), np.float32), np.zeros((count, 3), bool), ("push",) * count, np.arange(count)
    )


def noise(deviation=0.1, kind="quantile", seed=7):
    return StateNoise(deviation, STATS, kind, seed, ROWS)


@pytest.mark.parametrize("kind", ["quantile", "zscore"])
def test_in_normalised_units_the_noise_is_as_large_as_asked_for_in_every_dimension(kind):
    before, after = batch(), noise(kind=kind).added(batch(), 0, ALL)
    change = normalize(after.state, STATS, kind) - normalize(before.state, STATS, kind)
    np.testing.assert_allclose(change.std(axis=0), 0.1, rtol=0.05)
    np.testing.assert_allclose(change.mean(axis=0), 0.0, atol=0.01)
    assert after.state.dtype == np.float32
    np.testing.assert_array_equal(after.actions, before.actions)


def test_without_noise_the_batch_is_what_it_was():
    before = batch()
    assert noise(0.0).added(before, 0, ALL) is before


def test_a_step_of_a_run_always_has_the_same_noise_and_another_step_or_run_has_another():
    first, again, later, other = (
        noise(seed=seed).added(batch(), step, ALL).state for seed, step in ((7, 3), (7, 3), (7, 4), (8, 3))
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != later)
    assert np.any(first != other)


def test_processes_that_share_a_batch_add_to_their_rows_what_one_would():
    whole = noise().added(batch(), 5, ALL).state
    halves = [noise().added(batch(rows), 5, rows).state for rows in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS))]
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_noise_cannot_be_negative():
    with pytest.raises(ExperimentInvalid) as told:
        override(find_experiment("pi05_maniskill_pushcube_small"), ["state_noise=-0.1"])
    assert told.value.message == "The settings are not valid: state_noise must not be negative: -0.1."
