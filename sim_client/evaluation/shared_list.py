"""The list of episodes where other processes work on it too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sim_client.episode.record import EpisodeRecord
from sim_client.evaluation.work_list import Assignment, WorkList
from sim_client.results.shared import SharedDirectory

__all__ = ["SharedWorkList"]

_LOOK_S = 0.5
"""From one look at what the others have done to the next."""

OnNews = Callable[[Sequence[EpisodeRecord]], None]
OnWait = Callable[[Sequence[int]], None]


class SharedWorkList(WorkList):
    """Leases episodes from the directory, for one worker at a time: none lies idle with one process while another one
    has nothing to do. A lease ends with a record or with this process.

    Args:
        directory: which this process is a member of.
        at_once, retries: see `WorkList`.
        on_news: called with what has been recorded, by whomever. It may end the run, by `stop_after`.
        on_wait: called with the seeds that the others are at, once when they are all that is left.
    """

    def __init__(
        self, directory: SharedDirectory, at_once: int, retries: int, on_news: OnNews, on_wait: OnWait
    ) -> None:
        super().__init__((), at_once, retries)
        self._directory, self._on_news, self._on_wait = directory, on_news, on_wait
        self._next_look = 0.0

    def __len__(self) -> int:
        """Episodes that nobody is at, in no process."""
        return super().__len__() + self._directory.unleased

    def has_work(self) -> bool:
        """Wait for an episode that is free; False when the list is finished before there is one."""
        self._refill()
        return super().has_work()

    def take(self) -> tuple[Assignment, ...] | None:
        """The next lease.

        As long as this process is at an episode, None means that there is none now. Then it waits for those of the
        others, and takes over what they leave; None means that the list is finished.
        """
        self._refill()
        return super().take()

    def look(self) -> None:
        """See what the others have done, now and then."""
        if time.monotonic() >= self._next_look:
            self._directory.look()
            self._tell()

    def _refill(self) -> None:
        waited = False
        while not super().has_work() and not self._is_busy_and_knows():
            self.add(self._directory.lease(self._at_once))
            self._tell()
            left = self._directory.open()
            if super().has_work() or self._directory.leased or not left:
                return
            if not waited:
                self._on_wait([seed for _, seed in left])
                waited = True
            time.sleep(_LOOK_S)

    def _is_busy_and_knows(self) -> bool:
        """Whether this process is at an episode, and has just seen that no other one is free."""
        return bool(self._directory.leased) and not self._directory.unleased and time.monotonic() < self._next_look

    def _tell(self) -> None:
        self._next_look = time.monotonic() + _LOOK_S
        if news := self._directory.news():
            self._on_news(news)
