"""How many rows may be unanswered: bounded over all clients, and for one of them by half while others are there."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from policy_protocol.errors import Overloaded

__all__ = ["Admission"]

_BETWEEN_CALLS_S = 10.0
"""A client that makes single calls counts as connected for so long after each: it executes actions meanwhile."""


class Admission:
    """Counts the rows of each client from their arrival to their answer. Not thread-safe.

    Args:
        most: rows that may be unanswered.
        seconds_for: how long so many rows take; None when nobody knows yet.
    """

    def __init__(self, most: int, seconds_for: Callable[[int], float | None]) -> None:
        self._most, self._seconds_for = most, seconds_for
        self._held: Counter[Hashable] = Counter()
        self._rows = 0
        self._connected: Counter[Hashable] = Counter()
        self._left: OrderedDict[Hashable, float] = OrderedDict()
        """Clients whose last single call ended a while ago at most, that one first."""

    @property
    def rows(self) -> int:
        """Unanswered rows of all clients."""
        return self._rows

    @contextmanager
    def connected(self, client: Hashable) -> Iterator[None]:
        """While a client's connection is open."""
        self._connected[client] += 1
        try:
            yield
        finally:
            _subtract(self._connected, client, 1)

    @contextmanager
    def calling(self, client: Hashable) -> Iterator[None]:
        """During a single call of a client that will probably make more."""
        try:
            with self.connected(client):
                yield
        finally:
            self._left[client] = time.monotonic()
            self._left.move_to_end(client)
            self._forget_left()  # each call brings one: every client may call from another port each time

    @contextmanager
    def holding(self, client: Hashable, count: int) -> Iterator[None]:
        """While so many rows of a client are unanswered.

        Raises:
            Overloaded: there is no room for them, or only for those of others.
        """
        self._require_room(client, count)
        self._held[client] += count
        self._rows += count
        try:
            yield
        finally:
            self._rows -= count
            _subtract(self._held, client, count)

    def _require_room(self, client: Hashable, count: int) -> None:
        held, half = self._held[client], self._most // 2
        if self.rows + count > self._most:
            reason = f"{self.rows} rows are waiting already and this server takes {self._most} (--max-waiting)."
        elif held and held + count > half and self._others(client):
            reason = (
                f"{held} rows of this client are waiting already. Others are connected too, so it may have {half}: "
                f"half of what this server takes (--max-waiting {self._most})."
            )
        else:
            return
        pause = self._pause_ms()
        raise Overloaded(f"{reason} Ask again in {pause} ms.", retry_after_ms=pause)

    def _others(self, client: Hashable) -> bool:
        self._forget_left()
        return any(len(each) > (client in each) for each in (self._connected, self._left))

    def _forget_left(self) -> None:
        long_ago = time.monotonic() - _BETWEEN_CALLS_S
        while self._left and next(iter(self._left.values())) <= long_ago:
            self._left.popitem(last=False)

    def _pause_ms(self) -> int:
        """When half of the rows are answered."""
        seconds = self._seconds_for(self.rows)
        return 1000 if seconds is None else min(max(round(500 * seconds), 10), 60_000)


def _subtract(counter: Counter[Hashable], key: Hashable, count: int) -> None:
    counter[key] -= count
    if not counter[key]:
        del counter[key]
