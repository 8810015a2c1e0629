"""Where each array of a run lives: openpi's rule for the state, rows for the batch."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from training.freezing import Freezing
from training.pi05.model.batch_cut import BATCH, PARTS
from training.pi05.placement import Shardings
from training.samples import Samples
from training.train_state import TrainState

__all__ = [
    "SMALLEST_CUT",
    "bytes_per_device",
    "leaf_sharding",
    "local_rows",
    "own_rows",
    "param_shardings",
    "place_batch",
    "state_shardings",
    "with_shardings",
]

SMALLEST_CUT = 4 * 2**20
"""Bytes below which a leaf is copied: gathering it in each layer would cost more time than it saves memory."""

T = TypeVar("T")


def leaf_sharding(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> NamedSharding:
    """Matrices and larger tensors of 4 MiB or more are cut along the largest axis that the parts of a copy divide."""
    parts, size = mesh.shape[PARTS], np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize
    axes = [axis for axis in np.argsort(shape)[::-1].tolist() if shape[axis] % parts == 0]
    if parts == 1 or len(shape) < 2 or size < SMALLEST_CUT or not axes:
        return NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec(*(None,) * axes[0], PARTS))


def state_shardings(mesh: Mesh, shapes: TrainState) -> TrainState:
    """A sharding for each leaf of a state."""
    return jax.tree.map(lambda leaf: leaf_sharding(mesh, leaf.shape, leaf.dtype), shapes)


def param_shardings(mesh: Mesh, freezing: Freezing) -> Shardings:
    """The same for the parameters alone, by path and shape."""
    return lambda path, shape: leaf_sharding(mesh, shape, freezing.dtype(path))


def with_shardings(shapes: T, shardings: T) -> T:
    """Shapes that say where their arrays are to be."""

    def placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(placed, shapes, shardings)


def own_rows(mesh: Mesh, batch_size: int) -> slice:
    """The rows of a batch that this process's devices hold: all of them when it is alone."""
    cuts = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,)).values()
    spans = [index[0].indices(batch_size)[:2] for index in cuts if index is not None]
    start, stop = min(first for first, _ in spans), max(last for _, last in spans)
    assert sum(last - first for first, last in spans) == stop - start, "a process's devices are neighbours in the mesh"
    return slice(start, stop)


def place_batch(mesh: Mesh, samples: Samples) -> Samples:
    """Send each device its rows; returns before they arrive.

    Args:
        mesh: of all devices.
        samples: the rows of this process (`own_rows`); the result is the batch of all.
    """
    rows = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(rows, leaf), samples)


def local_rows(batch: Shaped[Array, "rows ..."]) -> Shaped[np.ndarray, "own_rows ..."]:
    """Those rows of an array cut by `BATCH` that this process holds."""
    shards = sorted(batch.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def bytes_per_device(shapes: TrainState, shardings: TrainState) -> int:
    """Memory of a state on each device, computed without any."""
    pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    return sum(int(np.prod(s.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf, s in pairs)
