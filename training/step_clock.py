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

    Args:
        batch_size: samples in a step.
        clock: seconds that pass.
    """

    def __init__(self, batch_size: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._batch_size, self._clock = batch_size, clock
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="step-clock")
        self._running: Future[float] | None = None
        self._begin()

    def waited(self, take: Callable[[], T]) -> T:
        """Take a step's batch; the time from the end of the step that runs is waiting for data."""
        begun = self._clock()
        samples = take()
        taken = self._clock()
        self._waited += max(0.0, taken - max(begun, self._idle_since(taken)))
        self._steps += 1
        return samples

    def began(self, result: jax.Array) -> None:
        """A step was begun that ends with this result. Returns when the step before it has ended: were this thread to
        run further ahead, the batches of all those steps would lie in the device's memory."""
        self._wait()
        self._running = self._watcher.submit(self._end, result)

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """What is done in here is no part of a step. It begins when the step that runs has ended, whose time counts."""
        self._wait()
        begun = self._clock()
        yield
        self._start += self._clock() - begun

    def record(self, step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
        """The line of a step; reading the metrics waits for the device, so the times are real."""
        values = {name: float(value) for name, value in metrics.items()}
        elapsed = self._clock() - self._start
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
        self._start, self._waited, self._steps = self._clock(), 0.0, 0

    def _idle_since(self, now: float) -> float:
        """When the device ended what it had to do; `now` if it has not yet."""
        if self._running is None:
            return 0.0
        ended = self._running.done() and not self._running.exception()
        return self._running.result() if ended else now

    def _wait(self) -> None:
        if self._running is not None:
            self._running.exception()  # the error of a step is raised where its result is read

    def _end(self, result: jax.Array) -> float:
        jax.block_until_ready(result)
        return self._clock()
