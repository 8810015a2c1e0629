"""How far an episode's observations are from the training data."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from policy_protocol import Observation, PolicySpec
from sim_client.episode.record import CameraStatistics

__all__ = ["DriftMeter"]


class DriftMeter:
    """Watches the observations of one episode.

    Args:
        spec: names the keys, and the training quantiles of the state.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self._state = spec.observation.state
        self._outside: list[Bool[np.ndarray, "state_dim"]] = []
        self._colours = {camera.key: _ColourSums() for camera in spec.observation.cameras}

    def see(self, observation: Observation) -> None:
        """Count one observation that is sent to the policy."""
        if self._state.q01 and self._state.q99:
            state = observation[self._state.key]
            self._outside.append((state < self._state.q01) | (state > self._state.q99))
        for key, sums in self._colours.items():
            if key in observation:
                sums.add(observation[key])

    @property
    def state_outside_share(self) -> float | None:
        """Share of state numbers outside the training q01 to q99 (2% is expected); None when those are unknown."""
        return float(np.mean(self._outside)) if self._outside else None

    @property
    def state_outside_by_dimension(self) -> tuple[float, ...]:
        """The same share for each number of the state, as the spec orders them; empty when unknown."""
        return tuple(np.mean(self._outside, axis=0).round(4).tolist()) if self._outside else ()

    @property
    def cameras(self) -> dict[str, CameraStatistics]:
        """Statistics per wire key, for the cameras that showed anything."""
        return {key: sums.statistics() for key, sums in self._colours.items() if sums.pixels}


class _ColourSums:
    """Running sums: count, sum and sum of squares per colour channel."""

    def __init__(self) -> None:
        self.pixels = 0
        self._sum: Float64[np.ndarray, "3"] = np.zeros(3)
        self._squares: Float64[np.ndarray, "3"] = np.zeros(3)

    def add(self, image: UInt8[np.ndarray, "height width 3"]) -> None:
        values = image.reshape(-1, 3).astype(np.float64)
        self.pixels += len(values)
        self._sum = self._sum + values.sum(axis=0)
        self._squares = self._squares + (values**2).sum(axis=0)

    def statistics(self) -> CameraStatistics:
        mean = self._sum / self.pixels
        variance = np.maximum(self._squares / self.pixels - mean**2, 0.0)
        return CameraStatistics(tuple(map(float, mean.round(2))), tuple(map(float, np.sqrt(variance).round(2))))
