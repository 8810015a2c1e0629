"""A crew of actors on a Ray cluster: the same workshop, on as many machines as the cluster has.

An actor has two threads: one that works, so that the simulator lives in one thread only, and one that answers how the
work is going. Every machine needs this project and the simulator installed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from policy_protocol.errors import ChunkwireError
from sim_client.crew.processes import MOST_CRASHES, SILENCE_S
from sim_client.crew.ray_hand import Hand, Told
from sim_client.crew.workshop import Event, Finished, Lost, Made, OnNote, Ready, Workshop
from sim_client.errors import InvalidOption, WorkersFailed

__all__ = ["RayCrew"]

_LOOK_S = 1.0
"""Seconds between two looks at what the actors tell."""

_START_S = math.inf
"""Limit for an actor's start: the cluster may have to make room first, for as long as others use it."""


class RayCrew:
    """Actors that take one CPU each. One that crashes or hangs is replaced, and its job is reported lost.

    Args:
        workshop: what each of them opens; goes to them by pickle.
        size: number of actors.
        address: of the cluster, such as `auto` or `ray://head:10001`; None starts one on this machine.
        silence_s: how long an actor at work may give no sign of life before it is taken for hung.
        most_crashes: so many in a row, without a result in between, end the run.

    Raises:
        InvalidOption: Ray is not installed, or there is no cluster at `address`.
    """

    def __init__(
        self,
        workshop: Workshop,
        size: int,
        address: str | None,
        silence_s: float = SILENCE_S,
        most_crashes: int = MOST_CRASHES,
    ) -> None:
        self._ray = _connect(address, size)
        self._workshop, self._silence_s, self._most_crashes = workshop, silence_s, most_crashes
        size = max(1, min(size, int(self._ray.cluster_resources().get("CPU", size))))
        self._crashes = 0
        self._members = [self._hire() for _ in range(size)]

    def run(self, take: Callable[[], Any], on_note: OnNote = lambda worker, note: None) -> Iterator[Event]:
        """See `Crew.run`."""
        while self._start(take):
            pending = [member.at_work for member in self._members if member.at_work is not None]
            finished, _ = self._ray.wait(pending, timeout=_LOOK_S)
            for number, member in enumerate(self._members):
                if member.at_work in finished:
                    yield from self._settle(number, member, on_note)
                else:
                    yield from self._look(number, member, on_note)

    def stop(self) -> None:
        """See `Crew.stop`; leaves the cluster."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._ray.shutdown()

    def _hire(self) -> _Member:
        remote = self._ray.remote(
            num_cpus=1, concurrency_groups={"work": 1, "talk": 1}, max_restarts=0, max_task_retries=0
        )
        actor = remote(Hand).remote(self._workshop)
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

    def _settle(self, number: int, member: _Member, on_note: OnNote) -> Iterator[Event]:
        """What an actor's finished call means."""
        try:
            answer = self._ray.get(member.at_work)
        except self._ray.exceptions.RayError as error:
            yield self._bury(number, member, _death(self._ray, error))
            return
        member.at_work = None
        if isinstance(answer, ChunkwireError):
            raise answer
        if not member.ready:
            member.ready = True
            yield Ready(number, answer)
            return
        yield from self._hear(number, member, on_note)  # it may have taken results before the work returned
        yield from self._made(number, member, answer)
        job, member.job = member.job, None
        yield Finished(number, job)

    def _made(self, number: int, member: _Member, results: Sequence[Any]) -> Iterator[Event]:
        for result in results:
            self._crashes = 0
            yield Made(number, member.job, result)

    def _look(self, number: int, member: _Member, on_note: OnNote) -> Iterator[Event]:
        """Pass on what an actor at work tells and has made; says when it hangs."""
        if member.at_work is None:
            return
        if member.told is None:
            member.told = member.actor.told.options(concurrency_group="talk").remote()
        answered, _ = self._ray.wait([member.told], timeout=0)
        if answered:
            yield from self._hear(number, member, on_note)
        if time.monotonic() - member.heard_at > member.patience_s:
            yield self._bury(number, member, f"the worker gave no sign of life for {member.patience_s:.0f} s")

    def _hear(self, number: int, member: _Member, on_note: OnNote) -> Iterator[Event]:
        """Take the answer to the question in flight of how the work is going."""
        if member.told is None:
            return
        told, member.told = _get_or_none(self._ray, member.told) or Told(signs=member.signs), None
        if told.signs != member.signs:
            member.signs, member.heard_at = told.signs, time.monotonic()
            member.patience_s = max(self._silence_s, told.patience_s or 0.0)
        for note in told.notes:
            on_note(number, note)
        yield from self._made(number, member, told.results)

    def _bury(self, number: int, member: _Member, reason: str) -> Lost:
        self._ray.kill(member.actor)
        self._crashes += 1
        if self._crashes >= self._most_crashes:
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
