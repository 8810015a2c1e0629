"""A signal to one process stops all of a run, after the same step."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from training.parallel.largest import Largest

__all__ = ["StopAgreement"]


class StopAgreement:
    """Carries each process's wish to stop to all of them, along with the step's own sums.

    What was wished at a step is known at the next one: reading it waits for a step that is done or nearly so, never
    for the one that was just begun, and the devices always have one to go on with.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._alone = jax.process_count() == 1
        self._largest = Largest(mesh)
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
        self._wished = self._largest(np.array([number or 0], np.int32))
        return (int(before[0]) or None) if before is not None else None
