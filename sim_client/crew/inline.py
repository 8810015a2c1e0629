"""A crew of one, in this very process: for a debugger, and for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sim_client.crew.workshop import Event, Finished, Made, OnNote, Ready, Workbench, Workshop

__all__ = ["InlineCrew"]


class InlineCrew:
    """Works on the jobs itself. What crashes or hangs takes the run along.

    Args:
        workshop: opened when `run` begins.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._bench: Workbench | None = None

    def run(self, take: Callable[[], Any], on_note: OnNote = lambda worker, note: None) -> Iterator[Event]:
        """See `Crew.run`."""

        def tell(note: object = None, patience_s: float | None = None) -> None:
            if note is not None:
                on_note(0, note)

        self._bench = self._workshop.open(tell)
        yield Ready(0, self._bench.facts)
        while (job := take()) is not None:
            yield from (Made(0, job, result) for result in self._bench.work(job))
            yield Finished(0, job)

    def stop(self) -> None:
        """See `Crew.stop`."""
        if self._bench is not None:
            self._bench.close()
            self._bench = None
