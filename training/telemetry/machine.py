"""What a run takes of its machines: the share of the arithmetic that they could do."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from training.experiment import Experiment
from training.freezing import Freezing
from training.telemetry.flops import peak_flops, training_flops

__all__ = ["Machine"]


class Machine:
    """Adds `mfu` to a logged record, where the device's speed is known.

    Args:
        experiment: whose steps are counted.
        cameras: that the model sees.
        prompt: tokens that prompts are padded to.
    """

    def __init__(self, experiment: Experiment, cameras: int, prompt: int) -> None:
        sizes = {"batch": experiment.batch_size, "cameras": cameras, "prompt": prompt}
        sizes["draws"] = experiment.draws_per_sample
        self._flops = training_flops(experiment.model, **sizes, frozen=Freezing.of(experiment).frozen)
        peak = peak_flops(jax.devices()[0])
        self._peak = None if peak is None else peak * jax.device_count()

    def record(self, record: Mapping[str, float]) -> dict[str, float]:
        """The record with what the machines did of what they could."""
        if self._peak is None:
            return dict(record)
        return {**record, "mfu": self._flops / record["step_seconds"] / self._peak}
