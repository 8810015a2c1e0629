"""What comes out of many environments at once; row i is environment i's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from sim_client.simulator.types import SimulatorObservation, StepResult

__all__ = ["StepResults", "VectorObservation"]


@dataclass(frozen=True)
class VectorObservation:
    """What the robots sense at one moment, a row for each environment that was asked about."""

    images: Mapping[str, UInt8[np.ndarray, "env height width 3"]]
    """RGB per camera."""
    state: Mapping[str, Float32[np.ndarray, "env dim"]]
    """Numbers per source, as in `SimulatorObservation`."""

    def row(self, row: int) -> SimulatorObservation:
        """What one of the environments senses, without copying it."""
        return SimulatorObservation(
            {name: images[row] for name, images in self.images.items()},
            {source: values[row] for source, values in self.state.items()},
        )


@dataclass(frozen=True)
class StepResults:
    """What the task says after one action in every environment; see `StepResult`."""

    success: Bool[np.ndarray, "env"]
    stages: Mapping[str, Bool[np.ndarray, "env"]]
    truncated: Bool[np.ndarray, "env"]
    elapsed_steps: Int[np.ndarray, "env"]

    def row(self, env: int) -> StepResult:
        """What it says of one environment."""
        return StepResult(
            success=bool(self.success[env]),
            stages={flag: bool(holds[env]) for flag, holds in self.stages.items()},
            truncated=bool(self.truncated[env]),
            elapsed_steps=int(self.elapsed_steps[env]),
        )
