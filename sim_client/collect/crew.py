"""Worker processes that may crash or hang without taking the collection along."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from sim_client.collect import worker
from sim_client.collect.parts import SimulatorDescription
from sim_client.collect.request import CollectionRequest
from sim_client.errors import CollectionError

__all__ = ["Crew"]

SILENCE_SECONDS = 180.0
"""A worker that gives no sign of life for so long is taken for hung: planning takes 1 to 4 s, a rendered step 0.5 s."""

START_SECONDS = 600.0
"""Limit for a worker's start: importing the simulator from a cold disk takes minutes."""

MAX_CRASHES = 6
"""Crashes in a row, three seeds tried twice, after which the machine is taken to be at fault."""


class _Member:
    """One worker process, the seed it works on and when it must next be heard of."""

    def __init__(self, request: CollectionRequest, directory: Path, number: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.log = directory / f"worker_{number}.log"
        self.connection, theirs = context.Pipe()
        arguments = (theirs, request, directory, self.log, threads)
        self.process = context.Process(target=worker.worker_main, args=arguments, daemon=True)
        with _without_ctrl_c():
            self.process.start()
        theirs.close()
        self.seed: int | None = None
        self.ready = False
        self.heard(START_SECONDS)

    def take(self, seed: int, patience: float) -> None:
        """Start on `seed`. If the process is dead already, the next `receive` tells."""
        self.seed = seed
        self.heard(patience)
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(seed)

    def heard(self, patience: float) -> None:
        """Note a sign of life; the next one is due within `patience` seconds."""
        self.patience = patience
        self.deadline = time.monotonic() + patience

    def receive(self) -> tuple[Any, ...] | None:
        """The next message, or None when the process is dead."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None

    def end(self) -> None:
        """Make an end of the process and see how it went."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def death(self) -> str:
        """Why the process died, with the last line it printed."""
        self.process.join(timeout=5)
        code = self.process.exitcode
        how = f"by {signal.Signals(-code).name}" if code and code < 0 else f"with exit code {code}"
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return f"the worker died {how}" + (f": {lines[-1][:200]}" if lines else "")


class Crew:
    """Several workers on one request. A worker that crashes or hangs is replaced; its seed gets one more try.

    Args:
        request: what to collect.
        directory: where the workers put demonstrations and logs.
        size: number of processes.
        described: called with the simulator's description when a worker has started.
        silence_seconds: how long a worker at work may give no sign of life before it is taken for hung.
    """

    def __init__(
        self,
        request: CollectionRequest,
        directory: Path,
        size: int,
        described: Callable[[SimulatorDescription], None],
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._request, self._directory, self._described = request, directory, described
        self._silence_seconds = silence_seconds
        self._threads = max(1, (os.cpu_count() or 1) // size)
        self._crashes = 0
        self._crashed: set[int] = set()
        self._members = [self._hire(number) for number in range(size)]

    def run(self, next_seed: Callable[[frozenset[int]], int | None]) -> Iterator[tuple[int, str | None]]:
        """Finished seeds, as they finish: None for a demonstration, else the reason why there is none.

        Args:
            next_seed: the seed to try next, given those in flight; None when there is nothing more to start. It is
                asked again after every finished seed, and offers a seed again whose worker crashed.

        Raises:
            ChunkwireError: the simulator cannot be set up, or the workers die whatever they are given.
        """
        while self._start(next_seed):
            for number, member in enumerate(self._members):
                finished = self._attend(number, member)
                if finished is not None:
                    yield finished
            soonest = min(member.deadline for member in self._members) - time.monotonic()
            wait([member.connection for member in self._members], timeout=max(0.05, min(soonest, 5.0)))

    def stop(self) -> None:
        """End all processes; what they were at is lost."""
        for member in self._members:
            member.end()

    def _hire(self, number: int) -> _Member:
        return _Member(self._request, self._directory, number, self._threads)

    def _start(self, next_seed: Callable[[frozenset[int]], int | None]) -> bool:
        """Give idle workers seeds; False when no seed is in flight and none is left."""
        for member in self._members:
            busy = frozenset(other.seed for other in self._members if other.seed is not None)
            seed = next_seed(busy)
            if seed is None:
                return bool(busy)
            if member.ready and member.seed is None:
                member.take(seed, self._silence_seconds)
        return True

    def _attend(self, number: int, member: _Member) -> tuple[int, str | None] | None:
        """Handle what one worker has to say; the finished seed if it finished one."""
        while member.connection.poll():
            message = member.receive()
            if message is None:
                return self._bury(number, member, member.death())
            finished = self._understand(member, *message)
            if finished is not None:
                return finished
        if member.seed is None and member.ready:
            member.heard(self._silence_seconds)
        elif time.monotonic() > member.deadline:
            return self._bury(number, member, f"the worker gave no sign of life for {member.patience:.0f} s")
        return None

    def _understand(self, member: _Member, kind: str, *content: Any) -> tuple[int, str | None] | None:
        member.heard(self._silence_seconds)
        if kind == worker.BROKEN:
            raise content[0]
        if kind == worker.READY:
            member.ready = True
            self._described(content[0])
        if kind in (worker.KEPT, worker.FAILED):
            seed, member.seed, self._crashes = member.seed, None, 0
            assert seed is not None
            return seed, content[0] if kind == worker.FAILED else None
        return None

    def _bury(self, number: int, member: _Member, reason: str) -> tuple[int, str | None] | None:
        """Replace a worker. The seed it held is asked for again; after a second crash it has no demonstration."""
        member.end()
        self._crashes += 1
        if self._crashes >= MAX_CRASHES:
            raise CollectionError(
                f"Worker processes failed {self._crashes} times in a row, the last time because {reason}. "
                f"Their output is in {member.log}. With too little memory, pass --workers 1."
            )
        self._members[number] = self._hire(number)
        if member.seed is None:
            return None
        if member.seed not in self._crashed:
            self._crashed.add(member.seed)
            return None
        return member.seed, f"it failed two workers, the second time because {reason}"


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes started here never see Ctrl-C, not even before their first line runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
