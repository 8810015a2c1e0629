"""Rows of all clients and transports in one queue, shared batches on every replica of the policy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from policy_protocol.errors import Overloaded
from policy_protocol.messages import ActionChunk
from policy_server.engine.device_thread import DeviceThread
from policy_server.engine.fair_queue import FairQueue
from policy_server.engine.patience import Patience
from policy_server.engine.waiting_row import WaitingRow
from policy_server.options import BATCH_SIZES
from policy_server.policies.served import ServedPolicy

__all__ = ["BatchMetrics", "Batcher"]

Progress = Callable[[int, int, str], None]


class BatchMetrics(Protocol):
    """Who counts what the devices do."""

    def batch(self, rows: int, padded: int, seconds: float, replica: int) -> None:
        """One batch is done: its rows, the rows of its shape, the device's seconds."""
        ...

    def queued(self, seconds: float) -> None:
        """One row waited that long."""
        ...


class Batcher:
    """Puts rows of many requests through a policy: one thread for each replica, one queue for all.

    A batch leaves as soon as a device is free, with whatever is waiting, padded to the next compiled shape. A single
    device waits a moment first for clients that it has just answered and that usually ask again at once, where that
    moment costs less than a batch of their own (see `Patience`).

    Args:
        policy: computes; its `transform` stays the caller's to call.
        batch_sizes: shapes to compile, ascending.
        max_waiting: rows that may wait; more are refused at once.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        batch_sizes: Sequence[int] = BATCH_SIZES,
        max_waiting: int = 1024,
        metrics: BatchMetrics | None = None,
    ) -> None:
        self._policy, self._metrics = policy, metrics
        self._batch_sizes = tuple(sorted(batch_sizes))
        self._queue: FairQueue[WaitingRow] = FairQueue(max_waiting, WaitingRow.has_client)
        self._patience = Patience(self._batch_sizes) if policy.replicas == 1 else None
        self._threads = [
            DeviceThread(policy, replica, self._queue, self._batch_sizes, self._count, self._patience)
            for replica in range(policy.replicas)
        ]

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return len(self._queue)

    def compile(self, progress: Progress = lambda done, total, shape: None) -> None:
        """Compile and run every shape once. Call before `start`, from a thread that may block."""
        shapes = [
            (replica, batch, length)
            for replica in range(self._policy.replicas)
            for length in self._policy.prompt_lengths
            for batch in self._batch_sizes
        ]
        for done, (replica, batch, length) in enumerate(shapes):
            where = f", device {replica}" if self._policy.replicas > 1 else ""
            progress(done, len(shapes), f"batch {batch}, prompt {length}{where}")
            self._policy.compile(batch, length, replica)
        self._policy.finish_compiling()
        progress(len(shapes), len(shapes), "ready")

    def start(self) -> None:
        """Start answering."""
        for thread in self._threads:
            thread.start()

    def submit(
        self, row: Any, noise_seed: int | None = None, expires: float | None = None, client: Hashable = None
    ) -> Future[ActionChunk]:
        """Queue one row, as `submit_all` does several."""
        return self.submit_all([(row, noise_seed)], expires, client)[0]

    def submit_all(
        self, rows: Sequence[tuple[Any, int | None]], expires: float | None = None, client: Hashable = None
    ) -> list[Future[ActionChunk]]:
        """Queue rows together: a free device begins with all of them that fit in a batch.

        Args:
            rows: each with its noise seed.
            expires: moment of `time.perf_counter` after which nobody wants the answers.
            client: whose rows they are; clients take turns.

        Returns:
            Futures that give a chunk with `infer_ms` and `queue_ms`, or raise a `ChunkwireError`.

        Raises:
            Overloaded: too many rows wait already; none of these does.
        """
        waiting = [WaitingRow(row, noise_seed, expires, client) for row, noise_seed in rows]
        if self._patience is not None:
            for each in waiting:
                self._patience.asked(each)
        if not self._queue.put(waiting, client):
            for each in waiting:
                each.future.cancel()
            raise Overloaded(f"{self._queue.most} requests are waiting already; ask again later.")
        return [each.future for each in waiting]

    def stop(self) -> None:
        """Answer what waits, then end the threads."""
        self._queue.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _count(self, rows: Sequence[WaitingRow], padded: int, begun: float, seconds: float, replica: int) -> None:
        if self._metrics is not None:
            self._metrics.batch(len(rows), padded, seconds, replica)
            for row in rows:
                self._metrics.queued(begun - row.queued)
