"""Work of milliseconds that must not hold up the event loop: done on a thread, and nobody leaves it behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["short_work"]

T = TypeVar("T")

_THREADS = ThreadPoolExecutor(thread_name_prefix="short work")


async def short_work(work: Callable[[], T], give_up: Callable[[], None] = lambda: None) -> T:
    """As `asyncio.to_thread`, but who is cancelled ends when the thread does: what it holds is counted until then.

    Args:
        give_up: told when nobody wants the result any more, so that `work` may end early.
    """
    working = _THREADS.submit(work)
    try:
        return await asyncio.wrap_future(working)
    except asyncio.CancelledError:
        give_up()
        if not working.cancel():  # it has begun
            await _ended(working)
        raise


async def _ended(work: Future[T]) -> None:
    """However often the caller is cancelled meanwhile."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    work.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    while not ended.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await ended.wait()
