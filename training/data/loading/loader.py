"""Batches of training samples: frames from the cache, states and action chunks from columns.

The batch of a step is a pure function of (seed, step): a resumed run needs nothing but its step to go on with the
very samples that it would have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from training.data.errors import DatasetInvalid
from training.data.frames.frame_cache import FrameCache
from training.data.lerobot.dataset import Dataset
from training.data.loading.prefetch import Prefetch

__all__ = ["Batch", "Loader"]


@dataclass(frozen=True)
class Batch:
    """Samples of one training step, in physical units, not yet normalised."""

    images: Mapping[str, UInt8[np.ndarray, "batch height width 3"]]
    """By camera key, RGB."""
    state: Float32[np.ndarray, "batch state_dim"]
    actions: Float32[np.ndarray, "batch action_horizon action_dim"]
    """The actions from the sample's row on; past the episode's end the last one is repeated."""
    actions_is_pad: Bool[np.ndarray, "batch action_horizon"]
    """True past the episode's end."""
    prompts: tuple[str, ...]
    rows: Int64[np.ndarray, "batch"]
    """Row of the dataset that each sample begins at."""


class Loader:
    """Shuffled batches of a dataset, endlessly: each epoch visits every row with a frame of its own once.

    Args:
        dataset: where states, actions and prompts come from.
        cache: its decoded frames.
        action_horizon: actions in a chunk.
        batch_size: samples in a batch; a batch may span two epochs, so no sample is ever dropped.
        seed: of the order.
        episodes: positions of the episodes to draw from; all when None.
        state_key: column of the proprioceptive state.
        action_key: column of the actions.

    Raises:
        DatasetInvalid: a column is missing (lists what there is), or no episode was chosen.
    """

    def __init__(
        self,
        dataset: Dataset,
        cache: FrameCache,
        *,
        action_horizon: int,
        batch_size: int,
        seed: int,
        episodes: Sequence[int] | None = None,
        state_key: str = "state",
        action_key: str = "actions",
    ) -> None:
        self.dataset, self.cache, self.seed = dataset, cache, seed
        self.action_horizon, self.batch_size = action_horizon, batch_size
        self._state = np.asarray(dataset.column(state_key), dtype=np.float32)
        self._actions = np.asarray(dataset.column(action_key), dtype=np.float32)
        parts = dataset.episodes
        self._last_row = np.repeat([part.stop - 1 for part in parts], [part.length for part in parts])
        self.anchors: Int64[np.ndarray, "anchors"] = _anchors(dataset, cache, episodes)
        """The rows at which samples begin, ascending."""
        self._order = lru_cache(maxsize=2)(self._shuffle)

    @property
    def steps_per_epoch(self) -> float:
        """Batches in which every anchor is seen once."""
        return len(self.anchors) / self.batch_size

    def rows(self, step: int) -> Int64[np.ndarray, "batch"]:
        """The rows of a step's samples."""
        return self.drawn(np.arange(step * self.batch_size, (step + 1) * self.batch_size))

    def drawn(self, draws: Int64[np.ndarray, "batch"]) -> Int64[np.ndarray, "batch"]:
        """The rows of the given draws (ascending, counted from the run's first), whatever the batch size."""
        epochs, places = np.divmod(draws, len(self.anchors))
        chosen = [self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        return self.anchors[np.concatenate(chosen)]

    def batch(self, step: int) -> Batch:
        """The batch of a step, made in this thread."""
        return self.samples(self.rows(step))

    def samples(self, rows: Int64[np.ndarray, "batch"]) -> Batch:
        """The samples that begin at the given rows."""
        return self.with_images(rows, {key: self.cache.gather(key, rows) for key in self.cache.images})

    def with_images(
        self, rows: Int64[np.ndarray, "batch"], images: Mapping[str, UInt8[np.ndarray, "batch height width 3"]]
    ) -> Batch:
        """The samples that begin at the given rows, with images that were gathered already."""
        ahead = rows[:, None] + np.arange(self.action_horizon)
        last = self._last_row[rows][:, None]
        return Batch(
            images=images,
            state=self._state[rows],
            actions=self._actions[np.minimum(ahead, last)],
            actions_is_pad=ahead > last,
            prompts=self.dataset.prompts(rows),
            rows=rows,
        )

    def prefetch(self, start: int = 0, stop: int | None = None, *, depth: int = 2) -> Prefetch[Batch]:
        """The batches of steps `start` to `stop` (endless when None), made ahead in a thread of their own.

        Use as a context manager: `with loader.prefetch(step) as batches: for batch in batches: …`.
        """
        return Prefetch(self.batch, start, stop, depth)

    def _shuffle(self, epoch: int) -> Int64[np.ndarray, "anchors"]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.anchors))


def _anchors(dataset: Dataset, cache: FrameCache, episodes: Sequence[int] | None) -> np.ndarray:
    chosen = np.zeros(dataset.rows, dtype=bool)
    for index in range(len(dataset.episodes)) if episodes is None else episodes:
        part = dataset.episodes[index]
        chosen[part.start : part.stop] = True
    anchors = np.flatnonzero(chosen & dataset.rendered & cache.usable)
    if not len(anchors):
        raise DatasetInvalid(f"No episode of {dataset.root} is left to train on. Hold fewer episodes out.")
    return anchors
