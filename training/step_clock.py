"""What the steps of a logged interval took, and how much of it the device waited for data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import jax

__all__ = ["StepClock"]

T = TypeVar("T")


class StepClock:
    """Measures the steps since the last record.

    A step is begun before the one before it has ended, so this thread may wait for a batch while the device computes.
    Only the time in which the device has nothing to do counts as waiting for data.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="step-clock")
        self._running: Future[float] | None = None
        self._begin()

    def waited(self, take: Callable[[], T]) -> T:
        """Take a step's batch; the time from the end of the step that runs is waiting for data."""
        begun = time.perf_counter()
        samples = take()
        taken = time.perf_counter()
        self._waited += max(0.0, taken - max(begun, self._idle_since(taken)))
        self._steps += 1
        return samples

    def began(self, result: jax.Array) -> None:
        """A step was begun that ends with this result. Returns when the step before it has ended: were this thread to
        run further ahead, the batches of all those steps would lie in the device's memory."""
        if self._running is not None:
            self._running.exception()  # waits; the error of a step is raised where its result is read
        self._running = self._watcher.submit(_end, result)

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

    def _idle_since(self, now: float) -> float:
        """When the device ended what it had to do; `now` if it has not yet."""
        if self._running is None:
            return 0.0
        ended = self._running.done() and not self._running.exception()
        return self._running.result() if ended else now


def _end(result: jax.Array) -> float:
    jax.block_until_ready(result)
    return time.perf_counter()
