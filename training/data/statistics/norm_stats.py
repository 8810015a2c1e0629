"""Norm stats of a dataset, from its columns: no image is decoded.

The definition is openpi's (mean, standard deviation without Bessel's correction, 1st and 99th percentile of each
dimension, float64) with two differences: openpi estimates the percentiles from a running histogram of 5000 bins, here
they are exact (linear interpolation); openpi counts each action once for every chunk it is in, here every row counts
once. The rows are read in blocks, as often as the quantiles need (twice for float32): memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from training.data.errors import DatasetInvalid
from training.data.lerobot.dataset import Dataset
from training.data.statistics.exact_quantiles import ExactQuantiles
from training.pi05.transforms.normalization import NormStats

__all__ = ["NORM_STATS_FILE", "compute_norm_stats", "pooled_norm_stats"]

NORM_STATS_FILE = Path("meta") / "norm_stats.json"

Part: TypeAlias = tuple[Dataset, Sequence[int] | None]
"""A dataset and the positions of the episodes that count; all when None."""


def compute_norm_stats(
    dataset: Dataset, *, keys: Sequence[str] = ("state", "actions"), episodes: Sequence[int] | None = None
) -> dict[str, NormStats]:
    """Exact statistics of the columns `keys`, over all rows or the rows of some episodes.

    Raises:
        DatasetInvalid: a column is missing, holds NaN or infinity (names the row), or no episode is left.
    """
    return pooled_norm_stats([(dataset, episodes)], keys=keys)


def pooled_norm_stats(parts: Sequence[Part], *, keys: Sequence[str] = ("state", "actions")) -> dict[str, NormStats]:
    """Exact statistics over the rows of several datasets whose columns have one shape; each row counts once.

    Raises:
        DatasetInvalid: as `compute_norm_stats`.
    """
    return {key: _statistics(parts, key) for key in keys}


def _statistics(parts: Sequence[Part], key: str) -> NormStats:
    rows = sum(_count(dataset, episodes) for dataset, episodes in parts)
    if not rows:
        raise DatasetInvalid(f"No episode of {parts[0][0].root} is left to take statistics of. Hold fewer out.")
    dtype = np.result_type(np.float32, *(dataset.feature(key).dtype for dataset, _ in parts))
    dimensions = int(np.prod(parts[0][0].feature(key).shape))
    quantiles = ExactQuantiles((0.01, 0.99), rows, dimensions, dtype)
    total, squares, mean = np.zeros(dimensions), np.zeros(dimensions), np.zeros(dimensions)
    for turn in range(quantiles.passes):
        for block in _blocks(parts, key):
            quantiles.add(block)
            if turn == 0:
                total += block.sum(axis=0, dtype=np.float64)
            elif turn == 1:
                squares += ((block.astype(np.float64) - mean) ** 2).sum(axis=0)
        mean = total / rows
        quantiles.settle()
    q01, q99 = quantiles.quantiles
    return NormStats(mean=mean, std=np.sqrt(squares / rows), q01=q01, q99=q99)


def _count(dataset: Dataset, episodes: Sequence[int] | None) -> int:
    return dataset.rows if episodes is None else sum(dataset.episodes[index].length for index in episodes)


def _blocks(parts: Sequence[Part], key: str) -> Iterator[Float[np.ndarray, "rows dim"]]:
    """The rows that count, a block at a time."""
    for dataset, episodes in parts:
        stops = np.array([episode.stop for episode in dataset.episodes])
        chosen = np.ones(len(stops), dtype=bool)
        if episodes is not None:
            chosen = np.isin(np.arange(len(stops)), episodes)
        for first, block in dataset.column_blocks(key):
            rows = first + np.arange(len(block))
            values = block.reshape(len(block), -1)
            _require_finite(dataset, key, first, values)
            kept = values[chosen[np.searchsorted(stops, rows, side="right")]]
            if len(kept):
                yield kept


def _require_finite(dataset: Dataset, key: str, first: int, values: np.ndarray) -> None:
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise DatasetInvalid(
            f"The column {key!r} of {dataset.root} holds NaN or infinity, first in row {first + broken[0]}: "
            "no statistics can be taken. Record that episode again."
        )
