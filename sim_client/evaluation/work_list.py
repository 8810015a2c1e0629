"""The fixed list of episodes: who has which on lease, and how often each was begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Assignment", "WorkList"]


@dataclass(frozen=True)
class Assignment:
    """One episode to run."""

    index: int
    """Its place in the run's list, from 0."""
    seed: int
    begun: int = 0
    """How often it was begun by workers that died at it."""
    lost_s: float = 0.0
    """Seconds that they spent on it."""


class WorkList:
    """Leases episodes in the order of the list. A lease ends with a result or with the worker's death.

    Args:
        remaining: (index, seed) of the episodes that have no result yet.
        at_once: episodes of one lease: as many as a worker runs side by side.
        retries: how often an episode is begun anew after a worker died at it.
    """

    def __init__(self, remaining: Iterable[tuple[int, int]], at_once: int = 1, retries: int = 2) -> None:
        self._waiting: deque[Assignment] = deque()
        self._at_once, self._retries = at_once, retries
        self.add(remaining)

    def __len__(self) -> int:
        """Episodes that nobody is at."""
        return len(self._waiting)

    def has_work(self) -> bool:
        """Whether it is worth to set workers up."""
        return bool(self._waiting)

    def look(self) -> None:
        """See what other processes have done: none works on this list."""

    def take(self) -> tuple[Assignment, ...] | None:
        """The next lease; None when no episode waits.

        One that a worker died at is leased alone: of several at once, only one may be to blame.
        """
        if not self._waiting:
            return None
        lease = [self._waiting.popleft()]
        while self._waiting and len(lease) < self._at_once and not lease[0].begun and not self._waiting[0].begun:
            lease.append(self._waiting.popleft())
        return tuple(lease)

    def lost(self, lease: Sequence[Assignment], seconds: float) -> tuple[Assignment, ...]:
        """Put a dead worker's episodes back, first in the line.

        Args:
            lease: those without a record.
            seconds: how long the worker was at them, shared by all.

        Returns:
            Those that were begun too often; they are not put back.
        """
        again = [Assignment(one.index, one.seed, one.begun + 1, one.lost_s + seconds / len(lease)) for one in lease]
        self._waiting.extendleft(one for one in reversed(again) if one.begun <= self._retries)
        return tuple(one for one in again if one.begun > self._retries)

    def add(self, free: Iterable[tuple[int, int]]) -> None:
        """Put (index, seed) of more episodes at the end of the line."""
        self._waiting.extend(Assignment(index, seed) for index, seed in free)
