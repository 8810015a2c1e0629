"""Vectors on their way to the model and back: small invertible steps, one after the other.

openpi's order: the robot's units to the model's, deltas, normalisation, padding. Statistics are taken after the deltas,
so each step must be undone in the reverse order; a `Chain` does both from one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from training.pi05.transforms.normalization import NormKind, NormStats, normalize, unnormalize

__all__ = ["Chain", "DeltaActions", "Normalize", "Pad", "VectorTransform"]

Vectors = Float[np.ndarray, "*batch dim"]
State = Float[np.ndarray, "*chunks state_dim"]


class VectorTransform(Protocol):
    """One invertible step on vectors (the last axis).

    `state` is the proprioceptive state at the start of each chunk, in the model's units; only deltas look at it.
    """

    def __call__(self, x: Vectors, state: State | None = None) -> Vectors:
        """Towards the model."""
        ...

    def inverse(self, x: Vectors, state: State | None = None) -> Vectors:
        """Back from the model."""
        ...


@dataclass(frozen=True)
class DeltaActions:
    """Actions relative to the state at the chunk's start, in the dimensions that the mask names."""

    mask: tuple[bool, ...]
    """May be shorter than the action: the rest stays absolute."""

    def __call__(self, x: Vectors, state: State | None = None) -> Vectors:
        return x - self._offset(x, state)

    def inverse(self, x: Vectors, state: State | None = None) -> Vectors:
        return x + self._offset(x, state)

    def _offset(self, x: Vectors, state: State | None) -> Vectors:
        assert state is not None, "delta actions need the state at the chunk's start"
        chosen = [index for index, relative in enumerate(self.mask) if relative]
        offset = np.zeros((*state.shape[:-1], 1, x.shape[-1]), np.result_type(x, state))
        offset[..., 0, chosen] = state[..., chosen]
        return offset


@dataclass(frozen=True)
class Normalize:
    """To the scale that the model was trained in."""

    stats: NormStats
    kind: NormKind

    def __call__(self, x: Vectors, state: State | None = None) -> Vectors:
        return normalize(x, self.stats, self.kind)

    def inverse(self, x: Vectors, state: State | None = None) -> Vectors:
        return unnormalize(x, self.stats, self.kind)


@dataclass(frozen=True)
class Pad:
    """Zeros up to the model's width; back, they are cut off."""

    real: int
    width: int

    def __call__(self, x: Vectors, state: State | None = None) -> Vectors:
        return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.width - self.real)])

    def inverse(self, x: Vectors, state: State | None = None) -> Vectors:
        return x[..., : self.real]


@dataclass(frozen=True)
class Chain:
    """Steps in order; the inverse undoes the last one first."""

    steps: tuple[VectorTransform, ...]

    def stages(self, x: Vectors, state: State | None = None) -> list[Vectors]:
        """What each step makes of the one before."""
        made = []
        for step in self.steps:
            x = step(x, state)
            made.append(x)
        return made

    def __call__(self, x: Vectors, state: State | None = None) -> Vectors:
        return self.stages(x, state)[-1] if self.steps else x

    def inverse(self, x: Vectors, state: State | None = None) -> Vectors:
        for step in reversed(self.steps):
            x = step.inverse(x, state)
        return x
