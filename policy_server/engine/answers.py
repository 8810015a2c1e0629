"""From the devices' threads back to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["answers"]

T = TypeVar("T")


async def answers(futures: Sequence[Future[T]]) -> list[T]:
    """The results of one future or more; raises the error of the first that fails.

    As `asyncio.gather` of `asyncio.wrap_future`, but the event loop is woken once and not for every row, and when it
    goes on without an answer the futures are left to the caller.
    """
    failed = await _Countdown(futures).over
    if failed is not None:
        failed.result()
    return [future.result() for future in futures]


class _Countdown(Generic[T]):
    """Over with the last future, or with the first that fails."""

    def __init__(self, futures: Sequence[Future[T]]) -> None:
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[Future[T] | None] = self._loop.create_future()
        self._left, self._lock = len(futures), threading.Lock()
        for future in futures:
            future.add_done_callback(self._done)

    def _done(self, future: Future[T]) -> None:
        """On the thread that ends it."""
        failed = future.cancelled() or future.exception() is not None
        with self._lock:
            self._left -= 1
            last = not self._left
        if failed or last:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._end, future if failed else None)

    def _end(self, failed: Future[T] | None) -> None:
        if not self.over.done():
            self.over.set_result(failed)
