"""Who usually asks again at once: the clients whose next row is on its way while the device is free."""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Return", "ReturningClients"]

_WEIGHT = 0.25
"""Of the newest think time in a client's running mean."""
_LONG_S = 0.1
"""A longer think time counts as this: even one keeps a client from being expected for its next few requests."""
_LATE_S = 0.001
"""A client that takes twice as long as usual, and this, does something else."""
_MOST_CLIENTS = 256


class Return(NamedTuple):
    """Rows of one client that are probably on their way."""

    at: float
    rows: int


@dataclass
class _Client:
    unanswered: int = 0
    rows: int = 0
    """Answered since it had none unanswered: so many will come again."""
    answered: float = 0.0
    think_s: float | None = None
    """Running mean of the seconds from its answer to its next row, capped at `_LONG_S`."""


class ReturningClients:
    """Learns each client's think time: from its answer, over the network and back, to its next row. Thread-safe."""

    def __init__(self) -> None:
        self._clients: OrderedDict[Hashable, _Client] = OrderedDict()
        """The one that was answered last at the end."""
        self._lock = threading.Lock()

    def asked(self, client: Hashable, now: float) -> None:
        """A row of a client has come."""
        with self._lock:
            known = self._clients.setdefault(client, _Client())
            if not known.unanswered and known.rows:
                thought = min(now - known.answered, _LONG_S)
                mean = thought if known.think_s is None else known.think_s
                known.think_s = mean + _WEIGHT * (thought - mean)
                known.rows = 0
            known.unanswered += 1
            if len(self._clients) > _MOST_CLIENTS:
                self._clients.popitem(last=False)

    def answered(self, client: Hashable, now: float) -> None:
        """A row of a client has its answer, or will get none."""
        with self._lock:
            if (known := self._clients.get(client)) is not None:
                known.unanswered = max(0, known.unanswered - 1)  # it may have been forgotten meanwhile
                known.rows += 1
                known.answered = now
                self._clients.move_to_end(client)

    def think_s(self, client: Hashable) -> float:
        """How long a client usually thinks; for ever, where that is not known."""
        known = self._clients.get(client)
        return math.inf if known is None or known.think_s is None else known.think_s

    def expected(self, now: float, within: float, answering: Iterable[Hashable] = ()) -> list[Return]:
        """The rows that will probably come within so many seconds.

        Args:
            answering: clients of the rows that are answered right now.
        """
        leaving, found = Counter(answering), []
        with self._lock:
            for client, rows in leaving.items():
                found.append(_return(self._clients.get(client), now, rows))
            for client, known in reversed(self._clients.items()):
                if client not in leaving and known.think_s is not None:
                    if now > known.answered + 2 * within + _LATE_S:
                        break  # all before it were answered even longer ago
                    found.append(_return(known, now, 0))
        return [each for each in found if each is not None and each.at <= now + within]


def _return(known: _Client | None, now: float, leaving: int) -> Return | None:
    """When a client will be back, with `leaving` of its rows answered right now; None when nobody can tell."""
    if known is None or known.think_s is None or known.unanswered != leaving:
        return None
    answered = now if leaving else known.answered
    if not known.rows + leaving or now > answered + 2 * known.think_s + _LATE_S:
        return None
    return Return(answered + known.think_s, known.rows + leaving)
