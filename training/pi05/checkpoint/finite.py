"""Weights that are not numbers are refused before anything is computed with them."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

__all__ = ["non_finite"]


def non_finite(flat: Mapping[str, Array | np.ndarray]) -> list[str]:
    """Paths of the leaves that hold NaN or infinity; each leaf is looked at where it lies."""
    return sorted(path for path, leaf in flat.items() if not _is_finite(leaf))


def _is_finite(leaf: Array | np.ndarray) -> bool:
    if isinstance(leaf, np.ndarray):
        return bool(np.isfinite(leaf).all())
    return bool(_all_finite(leaf))


@jax.jit
def _all_finite(leaf: Array) -> Array:
    return jnp.isfinite(leaf).all()
