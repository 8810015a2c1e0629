"""Norm stats of a dataset, from its columns: no image is decoded.

The definition is openpi's (mean, standard deviation without Bessel's correction, 1st and 99th percentile of each
dimension, float64) with two differences: openpi estimates the percentiles from a running histogram of 5000 bins, here
they are exact (linear interpolation); openpi counts each action once for every chunk it is in, here every row counts
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.data.errors import DatasetInvalid
from training.data.lerobot.dataset import Dataset
from training.pi05.transforms.normalization import NormStats

__all__ = ["NORM_STATS_FILE", "compute_norm_stats"]

NORM_STATS_FILE = Path("meta") / "norm_stats.json"


def compute_norm_stats(
    dataset: Dataset, *, keys: Sequence[str] = ("state", "actions"), episodes: Sequence[int] | None = None
) -> dict[str, NormStats]:
    """Exact statistics of the columns `keys`, over all rows or the rows of some episodes.

    Raises:
        DatasetInvalid: a column is missing, or holds NaN or infinity (names the row).
    """
    return {key: _statistics(dataset, key, _rows(dataset, episodes)) for key in keys}


def _rows(dataset: Dataset, episodes: Sequence[int] | None) -> slice | np.ndarray:
    if episodes is None:
        return slice(None)
    parts = [dataset.episodes[index] for index in episodes]
    return np.concatenate([np.arange(part.start, part.stop) for part in parts])


def _statistics(dataset: Dataset, key: str, rows: slice | np.ndarray) -> NormStats:
    column = dataset.column(key)
    broken = np.flatnonzero(~np.isfinite(column).all(axis=1))
    if len(broken):
        raise DatasetInvalid(
            f"The column {key!r} of {dataset.root} holds NaN or infinity, first in row {broken[0]}: "
            "no statistics can be taken. Record that episode again."
        )
    values = column[rows].astype(np.float64)
    q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
    return NormStats(mean=values.mean(axis=0), std=values.std(axis=0), q01=q01, q99=q99)
