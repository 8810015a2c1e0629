"""A crew of actors on a Ray cluster: the same workshop, on as many machines as the cluster has.

An actor has two threads: one that works, so that the simulator lives in one thread only, and one that answers how the
work is going. Every machine needs this project and the simulator installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from policy_protocol.errors import ChunkwireError
from sim_client.crew.workshop import Event, Finished, Lost, OnNote, Ready, Workbench, Workshop
from sim_client.errors import InvalidOption, WorkersFailed

__all__ = ["RayCrew"]

_LOOK_S = 1.0
"""Seconds between two looks at what the actors tell."""

_START_S = 600.0
"""Limit for an actor's start: the cluster may have to make room, and the simulator loads from a cold disk."""

_MAX_CRASHES = 6
"""Crashes in a row after which the cluster is taken to be at fault."""


class RayCrew:
    """Actors that take one CPU each. One that crashes or hangs is replaced, and its job is reported lost.

    Args:
        workshop: what each of them opens; goes to them by pickle.
        size: number of actors.
        address: of the cluster, such as `auto` or `ray://head:10001`; None starts one on this machine.
        silence_s: how long an actor at work may give no sign of life before it is taken for hung.

    Raises:
        InvalidOption: Ray is not installed, or there is no cluster at `address`.
    """

    def __init__(self, workshop: Workshop, size: int, address: str | None, silence_s: float) -> None:
        self._ray = _connect(address, size)
        self._workshop, self._silence_s = workshop, silence_s
        self._crashes = 0
        self._members = [self._hire() for _ in range(size)]

    def run(self, take: Callable[[], Any], on_note: OnNote = lambda worker, note: None) -> Iterator[Event]:
        """See `Crew.run`."""
        while self._start(take):
            pending = [member.at_work for member in self._members if member.at_work is not None]
            finished, _ = self._ray.wait(pending, timeout=_LOOK_S)
            for number, member in enumerate(self._members):
                if member.at_work in finished:
                    yield self._settle(number, member)
                elif (event := self._look(number, member, on_note)) is not None:
                    yield event

    def stop(self) -> None:
        """See `Crew.stop`; leaves the cluster."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._ray.shutdown()

    def _hire(self) -> _Member:
        remote = self._ray.remote(
            num_cpus=1, concurrency_groups={"work": 1, "talk": 1}, max_restarts=0, max_task_retries=0
        )
        actor = remote(_Hand).remote(self._workshop)
        return _Member(actor, actor.open.options(concurrency_group="work").remote(), _START_S)

    def _start(self, take: Callable[[], Any]) -> bool:
        """Give idle actors jobs; False when nothing is in flight and no job is left."""
        waiting = True
        for member in self._members:
            if member.at_work is not None:
                continue
            job = take()
            if job is None:
                waiting = False
                continue
            member.job, member.patience_s, member.heard_at = job, self._silence_s, time.monotonic()
            member.at_work = member.actor.work.options(concurrency_group="work").remote(job)
        busy = any(member.at_work is not None for member in self._members)
        return busy and (waiting or any(member.job is not None for member in self._members))

    def _settle(self, number: int, member: _Member) -> Event:
        """The event that an actor's finished call is."""
        try:
            result = self._ray.get(member.at_work)
        except self._ray.exceptions.RayError as error:
            return self._bury(number, member, _death(self._ray, error))
        self._crashes, member.at_work = 0, None
        if isinstance(result, ChunkwireError):
            raise result
        if not member.ready:
            member.ready = True
            return Ready(number, result)
        job, member.job = member.job, None
        return Finished(number, job, result)

    def _look(self, number: int, member: _Member, on_note: OnNote) -> Event | None:
        """Pass on what an actor at work tells; an event when it hangs."""
        if member.at_work is None:
            return None
        if member.told is None:
            member.told = member.actor.told.options(concurrency_group="talk").remote()
        answered, _ = self._ray.wait([member.told], timeout=0)
        if answered:
            note, patience_s, signs = _get_or_none(self._ray, member.told) or (None, None, member.signs)
            member.told = None
            if signs != member.signs:
                member.signs, member.heard_at = signs, time.monotonic()
                member.patience_s = max(self._silence_s, patience_s or 0.0)
            if note is not None:
                on_note(number, note)
        if time.monotonic() - member.heard_at > member.patience_s:
            return self._bury(number, member, f"the worker gave no sign of life for {member.patience_s:.0f} s")
        return None

    def _bury(self, number: int, member: _Member, reason: str) -> Lost:
        self._ray.kill(member.actor)
        self._crashes += 1
        if self._crashes >= _MAX_CRASHES:
            raise WorkersFailed(
                f"Actors of the Ray cluster failed {self._crashes} times in a row, the last time because {reason}. "
                "See Ray's logs; the simulator must be installed on every machine."
            )
        self._members[number] = self._hire()
        return Lost(number, member.job, reason)


@dataclass
class _Member:
    """An actor as the parent sees it."""

    actor: Any
    at_work: Any
    """The call in flight, if there is one."""
    patience_s: float
    job: Any = None
    ready: bool = False
    told: Any = None
    """The question in flight of how it is going."""
    signs: int = 0
    heard_at: float = field(default_factory=time.monotonic)


class _Hand:
    """The actor."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._bench: Workbench | None = None
        self._note: object = None
        self._patience_s: float | None = None
        self._signs = 0

    def open(self) -> Any:
        """The workbench's facts, or the error that no actor would fare better with."""
        try:
            self._bench = self._workshop.open(self._tell)
        except ChunkwireError as error:
            return error
        return self._bench.facts

    def work(self, job: Any) -> Any:
        """The result of a job."""
        assert self._bench is not None, "open it first"
        return self._bench.work(job)

    def told(self) -> tuple[object, float | None, int]:
        """The newest note, the patience asked for, and how many signs of life there were."""
        note, self._note = self._note, None
        return note, self._patience_s, self._signs

    def _tell(self, note: object = None, patience_s: float | None = None) -> None:
        self._note = note if note is not None else self._note
        self._patience_s = patience_s
        self._signs += 1


def _connect(address: str | None, size: int) -> Any:
    try:
        import ray
    except ImportError as error:
        raise InvalidOption(
            "--launcher ray needs Ray, which is not installed. Install it with `pip install 'chunkwire[ray]'`.",
            field="--launcher",
        ) from error
    own = {} if address is not None else {"num_cpus": size, "include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise InvalidOption(
            f"--ray-address {address}: no Ray cluster can be joined there ({_last_line(error)}). Start one with "
            "`ray start --head`, or leave the flag out.",
            field="--ray-address",
        ) from error
    return ray


def _get_or_none(ray: Any, reference: Any) -> Any:
    """The value, or None from an actor that has died: its work tells of that."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError:
        return None


def _death(ray: Any, error: Exception) -> str:
    """Why an actor's call failed: its process ended, or its work raised."""
    if isinstance(error, ray.exceptions.RayActorError):
        return "the worker died" + (" by a signal or for lack of memory" if "SYSTEM_ERROR" in str(error) else "")
    return f"the worker died: {_last_line(error)}"


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:200] if lines else type(error).__name__
