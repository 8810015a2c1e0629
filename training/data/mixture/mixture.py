"""Datasets with weights, read as one dataset: the rows of each follow those of the one before."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from training.data.errors import DatasetInvalid
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.facts import DatasetFacts
from training.data.lerobot.fingerprint import fingerprint
from training.data.lerobot.metadata import Feature
from training.data.mixture.agreement import check_agreement
from training.data.mixture.merged_facts import merge_facts

__all__ = ["Mixture", "MixturePart", "parse_part"]


@dataclass(frozen=True)
class MixturePart:
    """One dataset of a mixture."""

    dataset: Dataset
    weight: float = 1.0
    """Its share of the samples, relative to the other weights."""


class Mixture:
    """One dataset or several that agree in all that a checkpoint states once.

    Args:
        parts: at least one. The order counts: rows are numbered through all of them.

    Raises:
        DatasetsDiffer: fps, shapes, cameras or simulation facts differ; shows a table of what each has.
        DatasetInvalid: no part, or a weight that is not a positive number.
    """

    def __init__(self, parts: Sequence[MixturePart]) -> None:
        if not parts:
            raise DatasetInvalid("There is no dataset to train on. Pass --dataset.")
        for part in parts:
            if not (math.isfinite(part.weight) and part.weight > 0):
                raise DatasetInvalid(f"{part.dataset.root} has the weight {part.weight:g}; it must be above 0.")
        self.parts = tuple(parts)
        if len(parts) > 1:
            check_agreement(self.datasets)

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The datasets alone."""
        return tuple(part.dataset for part in self.parts)

    @property
    def weights(self) -> tuple[float, ...]:
        """Share of the samples that each dataset gives; they sum to 1."""
        total = sum(part.weight for part in self.parts)
        return tuple(part.weight / total for part in self.parts)

    @property
    def root(self) -> Path:
        """Folder of the first dataset, for messages."""
        return self.datasets[0].root

    @property
    def features(self) -> Mapping[str, Feature]:
        """Columns and cameras, the same in every dataset where training reads them."""
        return self.datasets[0].features

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the cameras."""
        return self.datasets[0].cameras

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task text, each once."""
        return tuple(dict.fromkeys(task for dataset in self.datasets for task in dataset.tasks))

    @property
    def rows(self) -> int:
        """Rows of all datasets."""
        return sum(dataset.rows for dataset in self.datasets)

    @property
    def first_rows(self) -> Int64[np.ndarray, "datasets"]:
        """The mixture's row at which each dataset begins."""
        return np.cumsum([0, *(dataset.rows for dataset in self.datasets[:-1])], dtype=np.int64)

    @cached_property
    def facts(self) -> DatasetFacts | None:
        """The simulation facts of all; None when they have none."""
        return merge_facts(self.datasets, self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Hash (hex) of the contents, and of the weights where there are several; one dataset keeps its own."""
        hashes = [fingerprint(dataset) for dataset in self.datasets]
        if len(hashes) == 1:
            return hashes[0]
        lines = (f"{content} {weight:.9f}" for content, weight in zip(hashes, self.weights, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def parse_part(text: str) -> tuple[str, float]:
    """Name and weight of `NAME` or `NAME=WEIGHT`; without a weight it is 1.

    Raises:
        DatasetInvalid: what follows the last `=` is no number.
    """
    name, equals, weight = text.rpartition("=")
    if not equals:
        return text, 1.0
    try:
        return name, float(weight)
    except ValueError:
        raise DatasetInvalid(
            f"--dataset {text}: {weight!r} is no weight. Write NAME or NAME=WEIGHT, such as datasets/stackcube=2."
        ) from None
