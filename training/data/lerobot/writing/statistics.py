"""Exact statistics of columns and frames, as LeRobot's metadata holds them.

LeRobot samples and shrinks frames and estimates quantiles from histograms; here every row and every pixel counts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8

__all__ = ["QUANTILES", "ColourHistogram", "Statistics", "number_statistics"]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Statistics = Mapping[str, np.ndarray]
"""`min`, `max`, `mean`, `std`, `count` and the quantiles of one feature."""


def number_statistics(values: Shaped[np.ndarray, "rows dim"]) -> dict[str, np.ndarray]:
    """Statistics of each dimension over the rows; quantiles interpolate linearly. `count` has the shape (1,)."""
    exact = values.astype(np.float64)
    quantiles = np.quantile(exact, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": exact.mean(axis=0),
        "std": exact.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


class ColourHistogram:
    """Counts how often each channel takes each of its 256 values: all that the statistics of frames need."""

    def __init__(self, counts: Int64[np.ndarray, "3 256"] | None = None, frames: int = 0) -> None:
        self.counts = np.zeros((3, 256), dtype=np.int64) if counts is None else counts
        self.frames = frames

    def add(self, frames: UInt8[np.ndarray, "frames height width 3"]) -> None:
        """Count the pixels of these frames."""
        self.frames += len(frames)
        for channel in range(3):
            self.counts[channel] += np.bincount(frames[..., channel].ravel(), minlength=256)

    def __add__(self, other: ColourHistogram) -> ColourHistogram:
        return ColourHistogram(self.counts + other.counts, self.frames + other.frames)

    @property
    def mean(self) -> Float64[np.ndarray, "3"]:
        """Mean of each channel, 0 to 255."""
        return self.counts @ np.arange(256.0) / self.counts.sum(axis=1)

    @property
    def std(self) -> Float64[np.ndarray, "3"]:
        """Standard deviation of each channel over all pixels, 0 to 255."""
        deviation = np.arange(256.0)[None] - self.mean[:, None]
        return np.sqrt((self.counts * deviation**2).sum(axis=1) / self.counts.sum(axis=1))

    @property
    def all_zero(self) -> bool:
        """Every pixel is black."""
        return not self.counts[:, 1:].any()

    def statistics(self) -> dict[str, np.ndarray]:
        """LeRobot's form: pixels in [0, 1], each entry (3, 1, 1), `count` the number of frames."""
        seen = self.counts > 0
        numbers = {
            "min": seen.argmax(axis=1),
            "max": 255 - seen[:, ::-1].argmax(axis=1),
            "mean": self.mean,
            "std": self.std,
            **{name: self._quantile(share) for name, share in QUANTILES.items()},
        }
        scaled = {name: (value / 255.0).reshape(3, 1, 1) for name, value in numbers.items()}
        order = ("min", "max", "mean", "std", "count", *QUANTILES)
        return {name: np.array([self.frames]) if name == "count" else scaled[name] for name in order}

    def _quantile(self, share: float) -> np.ndarray:
        """Smallest value that at least this share of the pixels does not exceed."""
        below = np.cumsum(self.counts, axis=1)
        return (below >= share * below[:, -1:]).argmax(axis=1)
