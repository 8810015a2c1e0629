"""Work of seconds to minutes that nothing can interrupt, such as loading and compiling: an end does not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["is_left_behind", "long_work"]

T = TypeVar("T")
_NAME = "long work"


async def long_work(work: Callable[[], T]) -> T:
    """As `asyncio.to_thread`, but whoever stops waiting leaves the thread behind, and the event loop can close."""
    future: Future[T] = Future()
    threading.Thread(target=_run, args=(work, future), name=_NAME, daemon=True).start()
    return await asyncio.wrap_future(future)


def is_left_behind() -> bool:
    """Whether such work still runs. An interpreter that ends under compiled code may crash: use `os._exit` then."""
    return any(thread.name == _NAME for thread in threading.enumerate())


def _run(work: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
