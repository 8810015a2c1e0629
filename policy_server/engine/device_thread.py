"""The thread that feeds one copy of the weights.

While the device computes a batch, a full next one is put behind it already; a part-filled one waits and may grow until
the device is free, and a moment longer for those who come back at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from policy_protocol.errors import ChunkwireError, InternalError
from policy_protocol.messages import ActionChunk
from policy_server.engine.fair_queue import FairQueue
from policy_server.engine.patience import Moment, Patience
from policy_server.engine.waiting_row import WaitingRow
from policy_server.log import log
from policy_server.policies.served import Launched, ServedPolicy
from training.pi05.policy import NonFiniteActions, noise_from_seed

__all__ = ["BatchDone", "DeviceThread"]

BatchDone = Callable[[Sequence[WaitingRow], int, float, float, int], None]
"""Told of every batch: its rows, the rows of its shape, when the device began, its seconds, the replica."""


@dataclass(frozen=True)
class _Batch:
    rows: list[WaitingRow]
    padded: int
    launched: Launched
    at: float


class DeviceThread(threading.Thread):
    """Computes what waits in the queue with one replica of the policy, until the queue is closed and empty."""

    def __init__(
        self,
        policy: ServedPolicy,
        replica: int,
        queue: FairQueue[WaitingRow],
        batch_sizes: Sequence[int],
        on_batch: BatchDone,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(name=f"device {replica}", daemon=True)
        self._policy, self._replica, self._queue = policy, replica, queue
        self._batch_sizes, self._largest = batch_sizes, batch_sizes[-1]
        self._on_batch, self._patience = on_batch, patience
        self._free_at = 0.0

    def run(self) -> None:
        """Until the queue is closed and empty."""
        computing: _Batch | None = None
        while True:
            if computing is None:
                rows = self._queue.take(self._largest)
                if not rows:
                    return
                if moment := self._moment(rows):
                    rows += self._gather(rows, moment)
                computing = self._launch(rows)
                continue
            following = self._launch(self._queue.take_ahead(self._largest))
            failure, begun = self._wait(computing)
            if following is not None:
                self._deliver(computing, failure, begun)
            else:
                following = self._next(computing, failure, begun)
            computing = following

    def _next(self, done: _Batch, failure: Exception | None, begun: float) -> _Batch | None:
        """Launch what waits for the free device, before the answers are written unless it waits for who gets them."""
        rows = self._queue.take_now(self._largest)
        moment = self._moment(rows, done.rows)
        if moment is None:
            following = self._launch(rows)
            self._deliver(done, failure, begun)
            return following
        self._deliver(done, failure, begun)
        return self._launch(rows + self._gather(rows, moment))

    def _moment(self, rows: Sequence[WaitingRow], answering: Sequence[WaitingRow] = ()) -> Moment | None:
        return self._patience.moment(rows, answering) if rows and self._patience is not None else None

    def _gather(self, rows: Sequence[WaitingRow], moment: Moment) -> list[WaitingRow]:
        return self._queue.take_soon(moment.rows, self._largest - len(rows), moment.seconds)

    def _launch(self, rows: Sequence[WaitingRow]) -> _Batch | None:
        wanted = [row for row in rows if row.still_wanted()]
        if not wanted:
            return None
        padded = next(size for size in self._batch_sizes if size >= len(wanted))
        try:
            noise = np.stack([noise_from_seed(row.noise_seed, self._policy.noise_shape) for row in wanted])
            at = time.perf_counter()
            launched = self._policy.launch([row.row for row in wanted], noise, padded, self._replica)
        except Exception as error:
            _fail(wanted, error)
            return None
        return _Batch(wanted, padded, launched, at)

    def _wait(self, batch: _Batch) -> tuple[Exception | None, float]:
        """What went wrong, and when the device began with the batch: it may have been launched behind another."""
        begun, failure = max(batch.at, self._free_at), None
        try:
            batch.launched.wait()
        except Exception as error:  # a device error must cost this batch only
            failure = error
        self._free_at = time.perf_counter()
        if self._patience is not None and failure is None:
            self._patience.computed(batch.padded, self._free_at - begun)
        try:
            self._on_batch(batch.rows, batch.padded, begun, self._free_at - begun, self._replica)
        except Exception:  # who counts must not stop who computes
            log.exception("a batch could not be counted")
        return failure, begun

    def _deliver(self, batch: _Batch, failure: Exception | None, begun: float) -> None:
        infer_ms = (self._free_at - begun) * 1e3
        try:
            if failure is not None:
                raise failure
            chunks = list(zip(batch.rows, batch.launched.actions(), strict=True))
        except Exception as error:
            _fail(batch.rows, error)
            return
        for row, chunk in chunks:
            if not np.all(np.isfinite(chunk)):
                row.future.set_exception(NonFiniteActions())
                continue
            timing = {"infer_ms": infer_ms, "queue_ms": (begun - row.queued) * 1e3}
            row.future.set_result(ActionChunk(chunk, timing, batch.launched.checkpoint))


def _fail(rows: Sequence[WaitingRow], error: Exception) -> None:
    if not isinstance(error, ChunkwireError):
        log.error("the policy failed on a batch of %d", len(rows), exc_info=error)
        error = InternalError("The policy failed on this request; the server's log has the reason.")
    for row in rows:
        row.future.set_exception(error)
