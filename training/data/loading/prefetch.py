"""Makes items ahead of their use in a background thread."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Prefetch"]

T = TypeVar("T")
_POLL_SECONDS = 0.1


class Prefetch(Generic[T]):
    """Iterates over `make(start)`, `make(start + 1)`, … made at most `depth` items ahead.

    An exception in `make` is raised by the iterator in its turn. Leaving the context stops the thread.
    """

    def __init__(self, make: Callable[[int], T], start: int, stop: int | None, depth: int) -> None:
        self._make = make
        self._steps = itertools.count(start) if stop is None else iter(range(start, stop))
        self._ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=depth)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._closing.is_set():
            raise StopIteration
        item = self._ready.get()
        if isinstance(item, tuple):
            return item[0]
        self.close()
        if item is None:
            raise StopIteration
        raise item

    def close(self) -> None:
        """Stop the thread and drop what it made. May be called twice."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for step in self._steps:
                if not self._put((self._make(step),)):
                    return
            self._put(None)
        except BaseException as error:  # whatever it is, the consumer must learn of it
            self._put(error)

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        """Wait for room; False when the consumer has gone."""
        while not self._closing.is_set():
            try:
                self._ready.put(item, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False
