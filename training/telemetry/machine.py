"""What a run takes of its machine: the share of the arithmetic that it could do, and memory."""

from __future__ import annotations

import resource
from collections.abc import Mapping

import jax

from training.experiment import Experiment
from training.freezing import Freezing
from training.telemetry.flops import peak_flops, training_flops

__all__ = ["Machine"]


class Machine:
    """Adds `mfu` (where the device's speed is known) and `memory_gb` to a logged record.

    Args:
        experiment: whose steps are counted.
        cameras: that the model sees.
        prompt: tokens that prompts are padded to.
    """

    def __init__(self, experiment: Experiment, cameras: int, prompt: int) -> None:
        sizes = {"batch": experiment.batch_size, "cameras": cameras, "prompt": prompt}
        self._flops = training_flops(experiment.model, **sizes, frozen=Freezing.of(experiment).frozen)
        peak = peak_flops(jax.devices()[0])
        self._peak = None if peak is None else peak * jax.device_count()

    def record(self, record: Mapping[str, float]) -> dict[str, float]:
        """The record with what the machine did; memory is the most that one device, or this process, ever took."""
        line = {**record, "memory_gb": _memory() / 1e9}
        if self._peak is not None:
            line["mfu"] = self._flops / record["step_seconds"] / self._peak
        return line


def _memory() -> int:
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # a CPU has no memory of its own; Linux tells KiB
