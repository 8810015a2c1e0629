"""Exact quantiles of a stream of rows, in memory that does not grow with it: selection by radix.

A float's bits, read as an integer whose order is the float's, are settled sixteen at a time: each pass counts how often
every value of the next sixteen bits occurs among the numbers that share the bits settled so far, and so finds which of
them the wanted rank has. float32 takes two passes, float64 four; each holds 65,536 counts for each wanted rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Shaped

__all__ = ["ExactQuantiles"]

_BITS = 16
_VALUES = 1 << _BITS


class ExactQuantiles:
    """Quantiles of each dimension, linearly interpolated as `numpy.quantile` does.

    Run `passes` times over the same rows: `add` each block, then `settle`. After the last pass read `quantiles`.

    Args:
        shares: the wanted quantiles, 0 to 1.
        rows: number of rows that each pass will add.
        dimensions: numbers in a row.
        dtype: float32 or float64.
    """

    def __init__(self, shares: Sequence[float], rows: int, dimensions: int, dtype: np.dtype) -> None:
        self.passes = dtype.itemsize * 8 // _BITS
        """float32: 2, float64: 4."""
        self._dtype, self._rows, self._settled = dtype, rows, 0
        self._positions = [share * (rows - 1) for share in shares]
        ranks = {math.floor(position) for position in self._positions}
        ranks |= {min(rank + 1, rows - 1) for rank in ranks}
        self._selections = [_Selection(sorted(ranks)) for _ in range(dimensions)]

    def add(self, block: Float[np.ndarray, "rows dim"]) -> None:
        """Count the rows of a block; they must be finite and of the declared dtype."""
        keys = _ordered(np.asarray(block, dtype=self._dtype))
        unsettled = keys.dtype.itemsize * 8 - _BITS * self._settled
        for dimension, selection in enumerate(self._selections):
            selection.add(keys[:, dimension], unsettled)

    def settle(self) -> None:
        """End a pass."""
        for selection in self._selections:
            selection.settle()
        self._settled += 1

    @property
    def quantiles(self) -> Float64[np.ndarray, "shares dim"]:
        """The quantiles, in the order of `shares`."""
        assert self._settled == self.passes
        return np.array([self._at(position) for position in self._positions])

    def _at(self, position: float) -> np.ndarray:
        low = math.floor(position)
        lower, upper = (self._order_statistic(rank) for rank in (low, min(low + 1, self._rows - 1)))
        return lower + (upper - lower) * (position - low)

    def _order_statistic(self, rank: int) -> np.ndarray:
        """The number of that rank in each dimension."""
        keys = np.array([selection.found[rank] for selection in self._selections], dtype=np.uint64)
        return _number(keys.astype(f"u{self._dtype.itemsize}")).astype(np.float64)


class _Selection:
    """Finds the numbers of some ranks in one dimension."""

    def __init__(self, ranks: Sequence[int]) -> None:
        self.found = dict.fromkeys(ranks, 0)
        """By rank: the bits settled so far."""
        self._left = {rank: rank for rank in ranks}
        """By rank: its place among the numbers that share these bits."""
        self._counts: dict[int, np.ndarray] = {}

    def add(self, keys: Shaped[np.ndarray, "rows"], unsettled: int) -> None:
        shift = np.array(unsettled - _BITS, dtype=keys.dtype)
        first = unsettled == keys.dtype.itemsize * 8  # nothing is settled: every number counts
        settled = None if first else keys >> np.array(unsettled, dtype=keys.dtype)
        digits = (keys >> shift).astype(np.uint16)
        for prefix in set(self.found.values()):
            chosen = digits if settled is None else digits[settled == prefix]
            counts = np.bincount(chosen, minlength=_VALUES)
            self._counts[prefix] = self._counts[prefix] + counts if prefix in self._counts else counts

    def settle(self) -> None:
        for rank, prefix in self.found.items():
            below = np.cumsum(self._counts[prefix])
            digit = int(np.searchsorted(below, self._left[rank], side="right"))
            self._left[rank] -= int(below[digit - 1]) if digit else 0
            self.found[rank] = (prefix << _BITS) | digit
        self._counts = {}


def _ordered(numbers: Float[np.ndarray, "rows dim"]) -> Shaped[np.ndarray, "rows dim"]:
    """Unsigned integers in the order of the floats: negative ones have all bits turned, positive ones the sign."""
    width = numbers.dtype.itemsize
    bits = np.ascontiguousarray(numbers).view(f"u{width}")
    sign = np.array(1 << (8 * width - 1), dtype=bits.dtype)
    return np.where(bits & sign, ~bits, bits | sign)


def _number(keys: Shaped[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """The floats of such integers."""
    width = keys.dtype.itemsize
    sign = np.array(1 << (8 * width - 1), dtype=keys.dtype)
    return np.where(keys & sign, keys & ~sign, ~keys).view(f"f{width}")
