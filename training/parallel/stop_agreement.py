"""A signal to one process stops all of a run, after the same step."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from training.pi05.model.batch_cut import BATCH

__all__ = ["StopAgreement"]


class StopAgreement:
    """Carries each process's wish to stop to all of them, along with the step's own sums.

    What was wished at a step is known at the next one: reading it waits for a step that is done or nearly so, never
    for the one that was just begun, and the devices always have one to go on with.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._alone = jax.process_count() == 1
        self._rows, self._devices = NamedSharding(mesh, BATCH), mesh.devices.size
        self._largest = jax.jit(lambda wishes: wishes.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._wished: jax.Array | None = None

    def on(self, number: int | None) -> int | None:
        """The signal that stops the run after this step, the same in every process; None to go on.

        Call once a step, after its update was begun.

        Args:
            number: the signal that this process got; None for none.
        """
        if self._alone:
            return number
        before = self._wished
        wish = np.full(jax.local_device_count(), number or 0, np.int32)
        self._wished = self._largest(jax.make_array_from_process_local_data(self._rows, wish, (self._devices,)))
        return (int(before) or None) if before is not None else None
