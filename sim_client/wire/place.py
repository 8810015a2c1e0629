"""One address of a policy, and how it goes there."""

from __future__ import annotations

import time

from sim_client.wire.link import Backoff, Link

__all__ = ["Place"]

_REST_S = 60.0
"""Longest rest of a dead server while others answer: each attempt may hold a question up for two seconds."""


class Place:
    """One address, and the link to it while there is one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.link: Link | None = None
        self.reason = "not tried yet"
        """Why there is no link."""
        self.links = 0
        """How many there were so far."""
        self._rest = Backoff(longest_s=_REST_S)
        self._rests_until = 0.0

    @property
    def resting(self) -> bool:
        return time.monotonic() < self._rests_until

    def up(self, link: Link) -> None:
        self.link = link
        self.links += 1
        self._rest.reset()

    def down(self, reason: str) -> None:
        self.link, self.reason = None, reason
        self._rests_until = time.monotonic() + self._rest.next_s()
