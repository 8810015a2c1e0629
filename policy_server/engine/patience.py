"""When a free device waits a moment: for those who were just answered and come back at once, if it saves a batch."""

from __future__ import annotations

import bisect
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from policy_server.engine.returning import ReturningClients
from policy_server.engine.waiting_row import WaitingRow

__all__ = ["Moment", "Patience"]

_LONGEST_S = 0.008
_LONGEST_SHARE = 0.4
"""No moment is longer than this, nor than this share of the batch that could leave at once."""
_REMEMBERED = 8
_TRIES = 3
"""Batches until a shape's time is believed: a single one may have met anything."""


class Moment(NamedTuple):
    """How long to wait at most, and for how many more rows."""

    rows: int
    seconds: float


class Patience:
    """Weighs a moment of waiting against one batch more. Thread-safe.

    Clients that ask again as soon as they are answered fall into groups which wait for each other's batches, because a
    batch that leaves at once leaves just before those who were answered are back. With k rows here and m on their way,
    t(n) seconds for n rows, waiting w seconds is worth it when

    - the device gains: w < (t(k) + t(m) - t(k + m)) / 2, so that half of the saved time is still saved when they come.
      Clients that come back at once gain as much in each later batch, too;
    - where any of the k rows is of another client, the rows gain at once: w + t(k + m) is less than their mean time
      without waiting, of k t(k) and m (t(k) + t(m)).

    It is for one device. Of several, another one is free soon, and two groups compute at the same time.

    Args:
        batch_sizes: shapes, ascending.
        clock: seconds, as `WaitingRow.expires` counts them.
    """

    def __init__(self, batch_sizes: Sequence[int], clock: Callable[[], float] = time.perf_counter) -> None:
        self._batch_sizes, self._clock = tuple(batch_sizes), clock
        self._seconds = {size: deque[float](maxlen=_REMEMBERED) for size in batch_sizes}
        self._least: dict[int, float] = {}
        """Seconds that each known shape took at least lately: the rest is other people's noise."""
        self._clients = ReturningClients()

    def asked(self, row: WaitingRow) -> None:
        """A row goes into the queue."""
        if row.client is not None:
            self._clients.asked(row.client, row.queued)
            row.future.add_done_callback(lambda _: self._clients.answered(row.client, self._clock()))

    def computed(self, padded: int, seconds: float) -> None:
        """A batch of this shape took the device so long."""
        took = self._seconds[padded]
        took.append(seconds)
        if len(took) >= _TRIES:
            self._least[padded] = min(took)

    def moment(self, waiting: Sequence[WaitingRow], answering: Sequence[WaitingRow] = ()) -> Moment | None:
        """What to wait for with these rows at a free device; None when they had better leave at once.

        Args:
            answering: rows that are answered first where there is something to wait for.
        """
        count, now = len(waiting), self._clock()
        if not self._least or count >= self._batch_sizes[-1]:
            return None
        bound = min(_LONGEST_S, _LONGEST_SHARE * self._seconds_for(count))
        returns = self._clients.expected(now, bound, [row.client for row in answering])
        more = sum(each.rows for each in returns)
        if not more or count + more > self._batch_sizes[-1]:  # groups larger than a batch overlap by themselves
            return None
        together = self._seconds_for(count + more)
        deadlines = [row.expires - now - together for row in waiting if row.expires is not None]
        longest = min(bound, self._worth(waiting, more, bound), *deadlines)
        return Moment(more, longest) if max(each.at for each in returns) - now < longest else None

    def _worth(self, waiting: Sequence[WaitingRow], more: int, quick_s: float) -> float:
        """The longest wait that is worth one batch instead of two."""
        count = len(waiting)
        first, second, together = map(self._seconds_for, (count, more, count + more))
        device = (first + second - together) / 2
        if all(self._clients.think_s(row.client) <= quick_s for row in waiting):
            return device
        return min(device, first + more / (count + more) * second - together)

    def _seconds_for(self, rows: int) -> float:
        """A shape that is not known yet is taken for as fast as the next smaller one, so that it is tried."""
        index = bisect.bisect_left(self._batch_sizes, rows)
        smaller = self._batch_sizes[index::-1]
        return next(self._least[size] for size in (*smaller, *self._batch_sizes) if size in self._least)
