"""Noise on the proprioceptive states that are trained on.

Pi0.5 reads a state as text, each number a word of its own. A model from scratch knows no order among them: it learns
the states of its demonstrations by heart, and its neighbour is another word. With noise, neighbours mean the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from training.data import Batch
from training.pi05.transforms.normalization import NormKind, NormStats, unnormalize

__all__ = ["StateNoise"]


@dataclass(frozen=True)
class StateNoise:
    """Gaussian noise, other for every step of a run and every row of its batch, however many processes share it.

    Args:
        deviation: standard deviation in normalised units: with quantiles, 1 is half of the range from q01 to q99.
        stats: of the states.
        kind: of their normalisation.
        seed: of the run.
        batch_size: rows of a whole batch.
    """

    deviation: float
    stats: NormStats
    kind: NormKind
    seed: int
    batch_size: int

    def added(self, batch: Batch, step: int, rows: slice) -> Batch:
        """The given rows of a step's batch with noise on their states."""
        if not self.deviation:
            return batch
        width = batch.state.shape[1]
        unit = unnormalize(np.ones(width), self.stats, self.kind) - unnormalize(np.zeros(width), self.stats, self.kind)
        noise = np.random.default_rng([self.seed, step]).standard_normal((self.batch_size, width))[rows]
        return replace(batch, state=(batch.state + self.deviation * unit * noise).astype(np.float32))
