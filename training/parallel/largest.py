"""The largest of what each process of a run has measured or been told."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from training.pi05.model.batch_cut import BATCH

__all__ = ["Largest"]


class Largest:
    """Carries numbers of each process to all of them, over the very groups of devices that the steps sum over."""

    def __init__(self, mesh: Mesh) -> None:
        self._rows, self._devices = NamedSharding(mesh, BATCH), mesh.devices.size
        self._max = jax.jit(lambda rows: rows.max(axis=0), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, mine: Shaped[np.ndarray, "numbers"]) -> Shaped[Array, "numbers"]:
        """Of each number the largest among the processes; all call this together. Returns before it is there."""
        rows = np.tile(mine, (jax.local_device_count(), 1))
        placed = jax.make_array_from_process_local_data(self._rows, rows, (self._devices, len(mine)))
        largest: Shaped[Array, "numbers"] = self._max(placed)
        return largest
