"""What each process of a run measures of itself."""

from __future__ import annotations

import resource
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from training.parallel.largest import Largest

__all__ = ["EveryProcess"]


class EveryProcess:
    """Adds `memory_gb` to a record, and of it and of `data_wait_share` keeps the largest among the processes: all of
    them wait for the one that waits for its data, and the fullest is the first to have no memory."""

    def __init__(self, mesh: Mesh) -> None:
        self._largest = Largest(mesh)

    def record(self, record: Mapping[str, float]) -> dict[str, float]:
        """The record of the run; all processes call this after the same step. Memory is the most that one device, or
        on a CPU one process, ever took."""
        mine = {"data_wait_share": record["data_wait_share"], "memory_gb": _memory() / 1e9}
        if jax.process_count() > 1:
            mine = dict(zip(mine, self._of_all(mine), strict=True))
        return {**record, **mine}

    def _of_all(self, mine: Mapping[str, float]) -> list[float]:
        numbers: list[float] = np.asarray(self._largest(np.array([*mine.values()], np.float32))).tolist()
        return numbers


def _memory() -> int:
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if peaks := [int(held["peak_bytes_in_use"]) for held in stats if "peak_bytes_in_use" in held]:
        return max(peaks)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # a CPU has no memory of its own; Linux tells KiB
