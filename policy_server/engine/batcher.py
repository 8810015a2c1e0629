"""One thread owns the device; requests of all clients wait in one queue and share its batches.

A batch leaves as soon as the device is free, with whatever is waiting, padded to the next compiled batch size.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from policy_protocol.errors import ChunkwireError, DeadlineExceeded, InternalError, Overloaded
from policy_protocol.messages import ActionChunk
from policy_server.log import log
from policy_server.options import BATCH_SIZES
from training.pi05.policy import NonFiniteActions, Policy, noise_from_seed
from training.pi05.transforms.observation import Row

__all__ = ["Batcher"]


@dataclass(frozen=True)
class _Waiting:
    row: Row
    noise_seed: int | None
    expires: float | None
    future: Future[ActionChunk]
    queued: float = field(default_factory=time.perf_counter)


class Batcher:
    """Puts rows of many requests through a policy, from one thread.

    Args:
        policy: not used by any other thread afterwards.
        batch_sizes: shapes to compile, ascending.
        max_waiting: rows that may wait; more are refused at once.
    """

    def __init__(self, policy: Policy, batch_sizes: Sequence[int] = BATCH_SIZES, max_waiting: int = 1024) -> None:
        self._policy = policy
        self._batch_sizes = tuple(sorted(batch_sizes))
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._stopped = False

    def compile(self, progress: Callable[[int, int, str], None] = lambda done, total, shape: None) -> None:
        """Compile and run every shape once. Call before `start`, from the thread that may block."""
        shapes = [(batch, length) for length in self._policy.prompt_lengths for batch in self._batch_sizes]
        for done, (batch, length) in enumerate(shapes):
            progress(done, len(shapes), f"batch {batch}, prompt {length}")
            self._policy.compile(batch, length)
        progress(len(shapes), len(shapes), "ready")

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def submit(self, row: Row, noise_seed: int | None = None, expires: float | None = None) -> Future[ActionChunk]:
        """Queue one row. Its future gives a chunk with `infer_ms` and `queue_ms`, or raises a `ChunkwireError`.

        Args:
            expires: moment of `time.perf_counter` after which nobody wants the answer.

        Raises:
            Overloaded: too many rows wait already.
        """
        waiting = _Waiting(row, noise_seed, expires, Future())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise Overloaded(f"{self._queue.maxsize} requests are waiting already; ask again later.") from None
        return waiting.future

    def stop(self) -> None:
        """Answer what waits, then end the thread."""
        if self._thread.is_alive() and not self._stopped:
            self._stopped = True
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = self._gather(first)
            self._answer([waiting for waiting in batch if self._still_wanted(waiting)])
            if last:
                return

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        """What is waiting now, up to the largest shape; and whether the stop signal was among it."""
        batch = [first]
        while len(batch) < self._batch_sizes[-1]:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                return batch, True
            batch.append(waiting)
        return batch, False

    def _still_wanted(self, waiting: _Waiting) -> bool:
        if not waiting.future.set_running_or_notify_cancel():
            return False
        if waiting.expires is not None and time.perf_counter() > waiting.expires:
            waiting.future.set_exception(DeadlineExceeded("The deadline passed while the request was waiting."))
            return False
        return True

    def _answer(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        begun = time.perf_counter()
        shape = self._policy.noise_shape
        try:
            noise = np.stack([noise_from_seed(waiting.noise_seed, shape) for waiting in batch])
            size = next(size for size in self._batch_sizes if size >= len(batch))
            actions = self._policy.infer_rows([waiting.row for waiting in batch], noise, pad_to=size)
        except ChunkwireError as error:
            self._fail(batch, error)
            return
        except Exception:  # a device error must cost this batch only
            log.exception("the policy failed on a batch of %d", len(batch))
            self._fail(batch, InternalError("The policy failed on this request; the server's log has the reason."))
            return
        infer_ms = (time.perf_counter() - begun) * 1e3
        for waiting, chunk in zip(batch, actions, strict=True):
            if not np.all(np.isfinite(chunk)):
                waiting.future.set_exception(NonFiniteActions())
                continue
            queue_ms = (begun - waiting.queued) * 1e3
            waiting.future.set_result(ActionChunk(chunk, {"infer_ms": infer_ms, "queue_ms": queue_ms}))

    @staticmethod
    def _fail(batch: Sequence[_Waiting], error: ChunkwireError) -> None:
        for waiting in batch:
            waiting.future.set_exception(error)
