"""What the steps of a logged interval took, and how much of it was waiting for data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import jax

__all__ = ["StepClock"]

T = TypeVar("T")


class StepClock:
    """Measures the steps since the last record."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._begin()

    def waited(self, take: Callable[[], T]) -> T:
        """Take a step's batch; the time is waiting for data."""
        begun = time.perf_counter()
        samples = take()
        self._waited += time.perf_counter() - begun
        self._steps += 1
        return samples

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """What is done in here is no part of a step."""
        begun = time.perf_counter()
        yield
        self._start += time.perf_counter() - begun

    def record(self, step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
        """The line of a step; reading the metrics waits for the device, so the times are real."""
        values = {name: float(value) for name, value in metrics.items()}
        elapsed = time.perf_counter() - self._start
        line = {
            "step": step,
            **values,
            "step_seconds": elapsed / self._steps,
            "samples_per_second": self._batch_size * self._steps / elapsed,
            "data_wait_share": self._waited / elapsed,
        }
        self._begin()
        return line

    def _begin(self) -> None:
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0
