"""Activations stay cut by their batch while weights are gathered; XLA alone may choose to gather the batch instead."""

from __future__ import annotations

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

__all__ = ["BATCH", "COPIES", "PARTS", "keep_batch_cut"]

COPIES, PARTS = "copies", "parts"
"""Axes of training's mesh: whole copies of the state, and the parts of a copy."""
BATCH = PartitionSpec((COPIES, PARTS))
"""A batch is cut over all devices."""


def keep_batch_cut(x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """The same array, its first axis cut over all devices of the mesh of `jax.set_mesh`; without one, as it is."""
    if COPIES not in jax.sharding.get_abstract_mesh().axis_names:
        return x
    return jax.lax.with_sharding_constraint(x, BATCH)
