"""Quantiles by radix selection are numpy's, whatever the numbers and however they are cut into blocks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from training.data.statistics.exact_quantiles import ExactQuantiles

SHARES = (0.0, 0.01, 0.5, 0.99, 1.0)


def by_radix(values, block=7):
    quantiles = ExactQuantiles(SHARES, *values.shape, values.dtype)
    for _ in range(quantiles.passes):
        for start in range(0, len(values), block):
            quantiles.add(values[start : start + block])
        quantiles.settle()
    return quantiles.quantiles


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantiles_are_numpys(dtype):
    draws = np.random.default_rng(0)
    columns = [draws.normal(size=501), draws.integers(0, 3, 501), np.zeros(501), 1e-30 * draws.normal(size=501)]
    values = np.stack(columns, axis=1).astype(dtype)
    expected = np.quantile(values.astype(np.float64), SHARES, axis=0)
    np.testing.assert_allclose(by_radix(values), expected, rtol=1e-12, atol=0)


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(1)), elements=st.floats(-1e6, 1e6, width=32)))
def test_quantiles_are_numpys_for_any_numbers(values):
    expected = np.quantile(values.astype(np.float64), SHARES, axis=0)
    np.testing.assert_allclose(by_radix(values), expected, rtol=1e-12, atol=1e-12)


def test_memory_does_not_grow_with_the_rows():
    def peak(blocks):
        block = np.random.default_rng(0).normal(size=(4096, 2)).astype(np.float32)
        tracemalloc.start()
        quantiles = ExactQuantiles((0.01, 0.99), 4096 * blocks, 2, block.dtype)
        for _ in range(quantiles.passes):
            for _ in range(blocks):
                quantiles.add(block)
            quantiles.settle()
        _, reached = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return reached

    assert peak(40) < 1.05 * peak(4)
