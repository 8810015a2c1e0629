"""How long one question is worth asking again, and when that is safe."""

from __future__ import annotations

import time
from collections.abc import Sequence

from policy_protocol.errors import DeadlineExceeded, Draining, Overloaded
from sim_client.wire.link import Backoff, LinkLost

__all__ = ["Patience"]

_ASKED_AT_MOST = 3
"""Times that one request goes out while connections break under it: it may be what breaks them."""


class Patience:
    """Of one question.

    Args:
        deadline_ms: milliseconds from now after which the answer is of no use.
        repeatable: whether asking twice gives one and the same answer.
        connect_timeout: seconds for which servers that turn the question away are tried.
        reply_timeout: seconds for which full servers are asked again where there is no deadline.
    """

    def __init__(
        self, deadline_ms: float | None, repeatable: bool, connect_timeout: float, reply_timeout: float
    ) -> None:
        self._began = time.monotonic()
        self._deadline_ms = deadline_ms
        self._repeatable = repeatable
        self._connect_timeout, self._reply_timeout = connect_timeout, reply_timeout
        self._asked = 0
        self._turned_away_since: float | None = None
        self._backoff = Backoff()

    def left_s(self) -> float | None:
        """Seconds until the deadline; None without one. Raises `DeadlineExceeded` when it has passed."""
        if self._deadline_ms is None:
            return None
        left = self._began + self._deadline_ms / 1e3 - time.monotonic()
        if left <= 0:
            raise self.too_late()
        return left

    def too_late(self) -> DeadlineExceeded:
        """The deadline has passed."""
        return DeadlineExceeded(f"There was no answer within the deadline of {self._deadline_ms:g} ms.")

    def wait_for_room(self, full: Sequence[Overloaded]) -> None:
        """Wait as long as the soonest of the full servers said. Raises its error when there is not so much time."""
        pause, _, soonest = min(
            (self._backoff.next_s() if error.retry_after_ms is None else error.retry_after_ms / 1e3, index, error)
            for index, error in enumerate(full)
        )
        limit_s = self._reply_timeout if self._deadline_ms is None else self._deadline_ms / 1e3
        if time.monotonic() + pause >= self._began + limit_s:
            raise soonest
        time.sleep(pause)

    def turned_away(self, why: LinkLost | Draining) -> None:
        """A server is gone, or about to go. Raises `why` when the question must not, or need not, be asked again."""
        if isinstance(why, LinkLost) and why.asked:
            self._asked += 1
            if not self._repeatable or self._asked >= _ASKED_AT_MOST:
                raise why
        now = time.monotonic()
        if self._turned_away_since is None:  # at once: a connection that was idle for long is often found dead
            self._turned_away_since = now
            return
        if now - self._turned_away_since > self._connect_timeout:
            raise why
        time.sleep(self._backoff.next_s())
