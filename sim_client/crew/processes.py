"""A crew of processes on this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sim_client.crew import worker
from sim_client.crew.member import Member
from sim_client.crew.workshop import Event, Finished, Lost, Made, OnNote, Ready, Workshop
from sim_client.errors import WorkersFailed

__all__ = ["MOST_CRASHES", "SILENCE_S", "ProcessCrew"]

SILENCE_S = 180.0
"""A worker that gives no sign of life for so long is taken for hung: planning takes 1 to 4 s, a rendered step 0.5 s."""

MOST_CRASHES = 6
"""Crashes in a row, three jobs tried twice, after which the machine is taken to be at fault."""


class ProcessCrew:
    """Worker processes. One that crashes or hangs is replaced, and its job is reported lost.

    Args:
        workshop: what each of them opens; goes to them by pickle.
        directory: where their logs go.
        size: number of processes.
        silence_s: how long a worker at work may give no sign of life before it is taken for hung.
        most_crashes: so many in a row, without a result in between, end the run.
    """

    def __init__(
        self,
        workshop: Workshop,
        directory: Path,
        size: int,
        silence_s: float = SILENCE_S,
        most_crashes: int = MOST_CRASHES,
    ) -> None:
        self._workshop, self._directory, self._silence_s = workshop, directory, silence_s
        self._most_crashes = most_crashes
        self._threads = max(1, (os.cpu_count() or 1) // size)
        self._crashes = 0
        self._news = threading.Event()
        self._members = [self._hire(number) for number in range(size)]

    def run(self, take: Callable[[], Any], on_note: OnNote = lambda worker, note: None) -> Iterator[Event]:
        """See `Crew.run`."""
        while self._start(take):
            news = False
            for number, member in enumerate(self._members):
                if (event := self._attend(number, member, on_note)) is not None:
                    news = True
                    yield event
            if not news:  # else somebody may be idle now
                self._news.wait(self._until_the_next_deadline())
            self._news.clear()

    def stop(self) -> None:
        """See `Crew.stop`."""
        for member in self._members:
            member.end()

    def _until_the_next_deadline(self) -> float:
        left = [member.deadline - time.monotonic() for member in self._members if not member.idle]
        return max(0.05, min(left, default=5.0))

    def _hire(self, number: int) -> Member:
        log = self._directory / f"worker_{number}.log"
        return Member(self._workshop, log, self._threads, self._silence_s, self._news)

    def _start(self, take: Callable[[], Any]) -> bool:
        """Give idle workers jobs; False when no job is in flight and none is left."""
        waiting = True
        for member in self._members:
            if member.idle and (job := take()) is not None:
                member.take(job)
            elif member.idle:
                waiting = False
        return waiting or any(member.job is not None for member in self._members)

    def _attend(self, number: int, member: Member, on_note: OnNote) -> Event | None:
        """Handle what one worker has to say, up to the first event."""
        for message in member.messages():
            if message is None:
                return self._bury(number, member, member.death())
            if (event := self._understand(number, member, message, on_note)) is not None:
                return event
        if member.overdue:
            return self._bury(number, member, f"the worker gave no sign of life for {member.patience_s:.0f} s")
        return None

    def _understand(self, number: int, member: Member, message: tuple[Any, ...], on_note: OnNote) -> Event | None:
        kind, *content = message
        member.heard(content[1] if kind == worker.ALIVE else None)
        if kind == worker.BROKEN:
            raise content[0]
        if kind == worker.READY:
            member.ready = True
            return Ready(number, content[0])
        if kind == worker.MADE:
            self._crashes = 0
            return Made(number, member.job, content[0])
        if kind == worker.DONE:
            job, member.job = member.job, None
            return Finished(number, job)
        if content[0] is not None:
            on_note(number, content[0])
        return None

    def _bury(self, number: int, member: Member, reason: str) -> Lost:
        member.end()
        self._crashes += 1
        if self._crashes >= self._most_crashes:
            raise WorkersFailed(
                f"Worker processes failed {self._crashes} times in a row, the last time because {reason}. "
                f"Their output is in {member.log}."
                + (" With too little memory, pass --workers 1." if len(self._members) > 1 else "")
            )
        self._members[number] = self._hire(number)
        return Lost(number, member.job, reason)
