"""The rows of all clients, waiting for a device: bounded, and one client's flood waits behind nobody but itself."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First come, first served within a client; between clients one row each in turn. Thread-safe.

    Args:
        most: items that may wait.
        wanted: whether an item is still worth taking. One that is not takes nobody's place: it is dropped when it would
            be taken, or when there is no room.
    """

    def __init__(self, most: int, wanted: Callable[[T], bool] = lambda _: True) -> None:
        self.most = most
        self._wanted = wanted
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._count = 0
        self._closed = False
        self._idle = self._asleep = 0
        self._lock = threading.Lock()
        self._wakes: SimpleQueue[None] = SimpleQueue()
        """One for each taker to wake. A `threading.Condition` takes longer, and every request waits for it."""

    def __len__(self) -> int:
        return self._count

    def put(self, items: Sequence[T], client: Hashable) -> bool:
        """Let items of a client wait, for a taker that sees all of them; False when they would be too many."""
        with self._lock:
            if self._count + len(items) > self.most:
                self._drop_unwanted()
            if self._count + len(items) > self.most or self._closed:
                return False
            self._waiting.setdefault(client, deque()).extend(items)
            self._count += len(items)
            self._wake(len(items))
            return True

    def take(self, most: int) -> list[T]:
        """Up to `most` items, one of each client in turn; waits for the first. Empty once closed and drained."""
        with self._lock:
            self._idle += 1
        while True:
            with self._lock:
                if (taken := self._round_robin(most)) or self._closed:
                    self._idle -= 1
                    return taken
                self._asleep += 1
            self._wakes.get()

    def take_now(self, most: int) -> list[T]:
        """The same without waiting."""
        with self._lock:
            return self._round_robin(most)

    def take_soon(self, enough: int, most: int, seconds: float) -> list[T]:
        """Up to `most` items, as soon as `enough` of them wait, the time is over or the queue is closed."""
        end = time.perf_counter() + seconds
        while True:
            with self._lock:
                left = end - time.perf_counter()
                if self._count >= enough or self._closed or left <= 0:
                    return self._round_robin(most)
                self._asleep += 1
            self._sleep(left)

    def take_ahead(self, most: int) -> list[T]:
        """For a taker that is still busy: `most` items or none, and none while another is idle."""
        with self._lock:
            if self._count >= most:
                self._drop_unwanted()
            return self._round_robin(most) if self._count >= most and not self._idle else []

    def close(self) -> None:
        """Take no more items; who waits for one is told by an empty list."""
        with self._lock:
            self._closed = True
            self._wake(self._asleep)

    def _wake(self, most: int) -> None:
        for _ in range(min(most, self._asleep)):
            self._asleep -= 1
            self._wakes.put(None)

    def _sleep(self, seconds: float) -> None:
        """Until woken; one who wakes by itself counts no longer as asleep, or takes the wake that is on its way."""
        try:
            self._wakes.get(timeout=seconds)
        except Empty:
            with self._lock:
                if self._asleep:
                    self._asleep -= 1
                else:
                    self._wakes.get()

    def _round_robin(self, most: int) -> list[T]:
        taken: list[T] = []
        while self._waiting and len(taken) < most:
            client, items = self._waiting.popitem(last=False)
            while items:  # what is dropped costs its client no turn
                item = items.popleft()
                self._count -= 1
                if self._wanted(item):
                    taken.append(item)
                    break
            if items:
                self._waiting[client] = items  # to the end: its next item comes after everybody's
        return taken

    def _drop_unwanted(self) -> None:
        left = {client: deque(filter(self._wanted, items)) for client, items in self._waiting.items()}
        self._waiting = OrderedDict((client, items) for client, items in left.items() if items)
        self._count = sum(map(len, self._waiting.values()))
