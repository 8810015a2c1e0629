"""Whose turn it is: which dataset of a mixture gives each draw, by weight, without counting from the beginning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from training.data.errors import DatasetInvalid

__all__ = ["Turns"]

_CYCLE = 10_000
"""Draws after which every dataset has had exactly its share: weights are kept to one in this number."""


class Turns:
    """Assigns draws to datasets. Each cycle of 10,000 draws holds every dataset's share, in an order of its own.

    So how often a dataset was drawn before any draw is known at once, and a run can begin anywhere.

    Args:
        weights: share of each dataset; they sum to 1.
        seed: of the order.

    Raises:
        DatasetInvalid: a weight is too small to get a single draw of a cycle.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self.seed = seed
        self._quotas = np.diff(np.round(np.cumsum([0.0, *weights]) * _CYCLE).astype(np.int64))
        if not self._quotas.all():
            raise DatasetInvalid(
                f"A weight is below one in {_CYCLE} of all: that dataset would not be seen. Leave it out or raise it."
            )
        self._cycle = lru_cache(maxsize=2)(self._shuffle)

    def assign(
        self, draws: Int64[np.ndarray, "batch"]
    ) -> tuple[Int64[np.ndarray, "batch"], Int64[np.ndarray, "batch"]]:
        """The dataset of each draw (ascending), and the number of that dataset's draws before it."""
        cycles, places = np.divmod(draws, _CYCLE)
        parts = [(cycle, places[cycles == cycle]) for cycle in np.unique(cycles).tolist()]
        owners = np.concatenate([self._cycle(cycle)[0][place] for cycle, place in parts])
        ranks = np.concatenate([self._cycle(cycle)[1][place] for cycle, place in parts])
        return owners, cycles * self._quotas[owners] + ranks

    def _shuffle(self, cycle: int) -> tuple[np.ndarray, np.ndarray]:
        """The owner of each draw of a cycle, and how many draws that owner had in the cycle before."""
        owners = np.repeat(np.arange(len(self._quotas)), self._quotas)
        np.random.default_rng([self.seed, cycle]).shuffle(owners)
        ranks = np.empty_like(owners)
        for owner, quota in enumerate(self._quotas):
            ranks[owners == owner] = np.arange(quota)
        return owners, ranks
