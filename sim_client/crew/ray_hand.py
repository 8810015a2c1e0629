"""The actor of a Ray crew: one thread works, so that the simulator lives in one only, and one tells how it is going."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policy_protocol.errors import ChunkwireError
from sim_client.crew.workshop import Workbench, Workshop

__all__ = ["Hand", "Told"]


@dataclass(frozen=True)
class Told:
    """What an actor has to say between two looks at it."""

    signs: int
    """Signs of life so far."""
    patience_s: float | None = None
    notes: tuple[object, ...] = ()
    results: tuple[Any, ...] = ()


class Hand:
    """The actor."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._bench: Workbench | None = None
        self._notes: list[object] = []
        self._results: list[Any] = []
        self._patience_s: float | None = None
        self._signs = 0

    def open(self) -> Any:
        """The workbench's facts, or the error that no actor would fare better with."""
        try:
            self._bench = self._workshop.open(self._tell)
        except ChunkwireError as error:
            return error
        return self._bench.facts

    def work(self, job: Any) -> list[Any]:
        """Do a job; the results that nobody has fetched yet by `told`."""
        assert self._bench is not None, "open it first"
        for result in self._bench.work(job):
            self._results.append(result)
        return _taken(self._results)

    def told(self) -> Told:
        """What there is to say since the last time."""
        return Told(self._signs, self._patience_s, tuple(_taken(self._notes)), tuple(_taken(self._results)))

    def _tell(self, note: object = None, patience_s: float | None = None) -> None:
        if note is not None:
            # Of notes in quick succession the newest of a kind is enough: where an episode is, or the last sentence.
            self._notes = [other for other in self._notes if type(other) is not type(note)] + [note]
        self._patience_s = patience_s
        self._signs += 1


def _taken(things: list[Any]) -> list[Any]:
    """All of a list that another thread may be adding to, taken out of it."""
    taken = []
    while things:
        taken.append(things.pop(0))
    return taken
