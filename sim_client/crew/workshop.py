"""What a crew's worker does: it opens a workbench once, and works on one job after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Crew", "Event", "Finished", "Lost", "Made", "OnNote", "Ready", "Tell", "Workbench", "Workshop"]

Job = TypeVar("Job")
Result = TypeVar("Result")


class Tell(Protocol):
    """Given to the work, which calls it again and again: a native call that hangs does not."""

    def __call__(self, note: object = None, patience_s: float | None = None) -> None:
        """A sign of life.

        Args:
            note: something for the parent to show; only the newest of several in quick succession arrives.
            patience_s: for how long no other sign is to be expected, where that is longer than usual.
        """


class Workbench(Protocol[Job, Result]):
    """A worker's tools, set up."""

    @property
    def facts(self) -> Any:
        """What the parent wants to know of the tools before the first job."""

    def work(self, job: Job) -> Iterator[Result]:
        """Do one job; each result is the parent's as soon as it is yielded.

        Whatever it raises ends the worker, and another one takes its place.
        """

    def close(self) -> None:
        """Put the tools away."""


class Workshop(Protocol[Job, Result]):
    """Goes to every worker by pickle."""

    def open(self, tell: Tell) -> Workbench[Job, Result]:
        """Set the tools up. A `ChunkwireError` means that no worker will fare better, and ends the run."""


@dataclass(frozen=True)
class Ready:
    """A worker's tools are set up."""

    worker: int
    facts: Any


@dataclass(frozen=True)
class Made(Generic[Job, Result]):
    """A result of a job that may have more."""

    worker: int
    job: Job
    result: Result


@dataclass(frozen=True)
class Finished(Generic[Job]):
    """A job is done; all its results were made before."""

    worker: int
    job: Job


@dataclass(frozen=True)
class Lost(Generic[Job]):
    """A worker died or hung and was replaced; its job, if it had one, is not done beyond what was made of it."""

    worker: int
    job: Job | None
    reason: str


Event = Ready | Made[Any, Any] | Finished[Any] | Lost[Any]

OnNote = Callable[[int, Any], None]
"""Called with the worker's number and the note that its work told."""


class Crew(Protocol):
    """Several workers of one workshop."""

    def run(self, take: Callable[[], Any], on_note: OnNote = lambda worker, note: None) -> Iterator[Event]:
        """Work until nothing is in flight and `take` has no more; yields `Event`s as they happen.

        Args:
            take: the next job for an idle worker, or None when there is none now; asked again after every event.
            on_note: shows what the work tells.

        Raises:
            ChunkwireError: the tools cannot be set up, or the workers die whatever they are given.
        """

    def stop(self) -> None:
        """End all workers; what they were at is lost."""
