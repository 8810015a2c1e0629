"""All that a run reads of its datasets, in the order in which it is needed: facts, norm stats, then batches.

data = open_data(["datasets/stackcube=2", "datasets/pickcube"], seed=42, held_out=0.05)
norm_stats = data.norm_stats()                                 # columns alone
loaders = data.loaders(cache_root, height=224, width=224, action_horizon=20, batch_size=32)  # decodes what is not yet
loaders.train.batch(0), loaders.validation.batch(0)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from training.data.errors import DatasetInvalid
from training.data.frames.frame_cache import FrameCache, open_frame_caches
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.hub import find_dataset
from training.data.loading.held_out import check_fraction, held_out_episodes
from training.data.loading.loader import Loader
from training.data.loading.mixed_loader import MixedLoader
from training.data.mixture.mixture import Mixture, MixturePart, parse_part
from training.data.statistics.norm_stats import pooled_norm_stats
from training.pi05.transforms.normalization import NormStats

__all__ = ["Loaders", "TrainingData", "open_data"]


@dataclass(frozen=True)
class Loaders:
    """Batches to train on and batches to validate on."""

    train: Loader | MixedLoader
    validation: Loader | MixedLoader | None
    """Over the held-out episodes; None when there are none."""
    corrupt_frames: int
    """Frames that cannot be decoded and are left out; 0 unless asked to skip them."""


@dataclass(frozen=True)
class TrainingData:
    """A mixture of datasets, its episodes divided in two."""

    mixture: Mixture
    seed: int
    held_out: tuple[tuple[int, ...], ...]
    """For each dataset the episodes that training never sees."""

    @property
    def trained(self) -> tuple[tuple[int, ...], ...]:
        """For each dataset the episodes that are trained on."""
        datasets = zip(self.mixture.datasets, self.held_out, strict=True)
        return tuple(tuple(sorted({*range(len(dataset.episodes))} - {*kept})) for dataset, kept in datasets)

    def norm_stats(self) -> dict[str, NormStats]:
        """Exact statistics of `state` and `actions` over the rows trained on; each row counts once, whatever the
        weights. Raises `DatasetInvalid` for a missing column or a NaN."""
        return pooled_norm_stats(list(zip(self.mixture.datasets, self.trained, strict=True)))

    def loaders(
        self,
        cache_root: str | os.PathLike[str],
        *,
        height: int,
        width: int,
        action_horizon: int,
        batch_size: int,
        skip_corrupt: bool = False,
    ) -> Loaders:
        """Open the frame caches below `cache_root`, building what is missing, and make the loaders.

        Args:
            cache_root: see `open_frame_cache`, also for the errors.
            height: of the frames in pixels.
            width: likewise.
            action_horizon: actions in a chunk.
            batch_size: samples in a batch.
            skip_corrupt: train without the frames that cannot be decoded, and count them.
        """
        caches = open_frame_caches(
            self.mixture.datasets, cache_root, height=height, width=width, skip_corrupt=skip_corrupt
        )

        def make(episodes: Sequence[Sequence[int]]) -> Loader | MixedLoader:
            return self._loader(caches, episodes, action_horizon, batch_size)

        validation = make(self.held_out) if any(self.held_out) else None
        return Loaders(make(self.trained), validation, sum(cache.corrupt_frames for cache in caches))

    def _loader(
        self, caches: Sequence[FrameCache], episodes: Sequence[Sequence[int]], action_horizon: int, batch_size: int
    ) -> Loader | MixedLoader:
        loaders = [
            Loader(
                dataset, cache, action_horizon=action_horizon, batch_size=batch_size, seed=self.seed, episodes=chosen
            )
            for dataset, cache, chosen in zip(self.mixture.datasets, caches, episodes, strict=True)
        ]
        return loaders[0] if len(loaders) == 1 else MixedLoader(loaders, self.mixture.weights, self.seed)


def open_data(names: Sequence[str], *, seed: int, held_out: float = 0.0) -> TrainingData:
    """Open the datasets of a run; no frame is decoded.

    Args:
        names: each a folder or a Hub id (`find_dataset`), with `=WEIGHT` behind it if it is not 1.
        seed: of every order and of the division.
        held_out: share of the episodes of each dataset to keep out of training, 0 to 1 exclusive.

    Raises:
        DatasetInvalid: a dataset is missing or damaged, a weight or the share is out of range, or a dataset has too
            few episodes to hold any out.
        DatasetsDiffer: the datasets cannot be mixed; shows a table.
        HubUnavailable: a dataset cannot be downloaded.
    """
    check_fraction(held_out)
    parts = [MixturePart(Dataset(find_dataset(name)), weight) for name, weight in map(parse_part, names)]
    mixture = Mixture(parts)
    return TrainingData(mixture, seed, tuple(_hold_out(dataset, held_out, seed) for dataset in mixture.datasets))


def _hold_out(dataset: Dataset, share: float, seed: int) -> tuple[int, ...]:
    try:
        return held_out_episodes(len(dataset.episodes), share, seed)
    except DatasetInvalid as error:
        raise DatasetInvalid(f"{dataset.root}: {error.message}") from error
