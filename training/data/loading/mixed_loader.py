"""Batches of several datasets, mixed by weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from training.data.loading.loader import Batch, Loader
from training.data.loading.prefetch import Prefetch
from training.data.loading.turns import Turns

__all__ = ["MixedLoader"]


class MixedLoader:
    """A `Loader` over several: each dataset visits its own rows once an epoch of its own, as often as its weight says.

    The batch of a step is a pure function of (seed, step), as a `Loader`'s is. Rows are numbered through all datasets,
    those of each after those of the one before.

    Args:
        loaders: one for each dataset, alike in action horizon and batch size.
        weights: share of the samples that each gives; they sum to 1.
        seed: of the order in which the datasets take turns.

    Raises:
        DatasetInvalid: a weight is too small to count.
    """

    def __init__(self, loaders: Sequence[Loader], weights: Sequence[float], seed: int) -> None:
        self.loaders, self.seed = tuple(loaders), seed
        self.action_horizon, self.batch_size = loaders[0].action_horizon, loaders[0].batch_size
        self._turns = Turns(weights, seed)
        sizes = [loader.dataset.rows for loader in loaders]
        self._first_rows = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        parts = zip(loaders, self._first_rows, strict=True)
        self.anchors: Int64[np.ndarray, "anchors"] = np.concatenate([part.anchors + first for part, first in parts])
        """The rows at which samples begin, ascending."""

    @property
    def steps_per_epoch(self) -> float:
        """Batches that hold as many samples as all datasets together; a light dataset is not through by then."""
        return len(self.anchors) / self.batch_size

    def rows(self, step: int) -> Int64[np.ndarray, "batch"]:
        """The rows of a step's samples."""
        draws = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        owners, turns = self._turns.assign(draws)
        rows = np.empty(self.batch_size, dtype=np.int64)
        for owner in np.unique(owners):
            mine = owners == owner
            rows[mine] = self.loaders[owner].drawn(turns[mine]) + self._first_rows[owner]
        return rows

    def batch(self, step: int) -> Batch:
        """The batch of a step, made in this thread."""
        return self.samples(self.rows(step))

    def samples(self, rows: Int64[np.ndarray, "batch"]) -> Batch:
        """The samples that begin at the given rows, in their order."""
        owners = np.searchsorted(self._first_rows, rows, side="right") - 1
        places = [np.flatnonzero(owners == owner) for owner in range(len(self.loaders))]
        own = [rows[place] - first for place, first in zip(places, self._first_rows, strict=True)]
        parts = [loader.with_images(rows, {}) for loader, rows in zip(self.loaders, own, strict=True)]
        prompts = dict(
            pair for place, part in zip(places, parts, strict=True) for pair in zip(place, part.prompts, strict=True)
        )
        return Batch(
            images={key: self._frames(key, places, own) for key in self.loaders[0].cache.images},
            state=_scatter(places, [part.state for part in parts]),
            actions=_scatter(places, [part.actions for part in parts]),
            actions_is_pad=_scatter(places, [part.actions_is_pad for part in parts]),
            prompts=tuple(prompts[place] for place in range(len(rows))),
            rows=rows,
        )

    def _frames(
        self, key: str, places: Sequence[np.ndarray], own: Sequence[np.ndarray]
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Each dataset's frames go to their places at once: a batch of images is too large to be copied twice."""
        size = self.loaders[0].cache.images[key].shape[1:]
        frames = np.empty((sum(map(len, places)), *size), np.uint8)
        for loader, place, rows in zip(self.loaders, places, own, strict=True):
            loader.cache.gather_into(frames, key, rows, place)
        return frames

    def prefetch(self, start: int = 0, stop: int | None = None, *, depth: int = 2) -> Prefetch[Batch]:
        """The batches of steps `start` to `stop` (endless when None), made ahead in a thread of their own."""
        return Prefetch(self.batch, start, stop, depth)


def _scatter(places: Sequence[np.ndarray], parts: Sequence[np.ndarray]) -> np.ndarray:
    """One array with each part's rows at their places."""
    whole = np.empty((sum(map(len, places)), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for place, part in zip(places, parts, strict=True):
        whole[place] = part
    return whole
