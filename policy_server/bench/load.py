"""Clients that ask a server as fast as it answers, each one question at a time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from policy_protocol import Observation, PolicySpec
from policy_protocol.errors import ChunkwireError, Overloaded, ServerUnavailable
from policy_server.bench.connections import Connection, dial
from policy_server.bench.questions import Questions, random_observations

__all__ = ["Load", "Measurements", "put_load"]

_PAUSE_S = 0.5
"""Before another connection is tried, and the longest wait that an overloaded server is granted."""
_POOL = 4
"""Different observations."""


@dataclass(frozen=True)
class Load:
    """What to ask of a server."""

    url: str
    clients: int = 8
    batch: int | None = None
    """Rows of each request; None for requests without a batch."""
    seconds: float = 10.0
    """How long it goes on, unless `requests` ends it."""
    requests: int | None = None
    """Requests of all clients together."""
    api_key: str | None = None
    connect_timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.clients < 1 or self.seconds <= 0 or (self.batch or 1) < 1 or (self.requests or 1) < 1:
            raise ValueError("clients, batch and requests must be at least 1, seconds more than 0.")


@dataclass
class Measurements:
    """What all clients have seen so far; milliseconds, in the order in which replies came."""

    checkpoint: str = ""
    round_trip: list[float] = field(default_factory=list)
    """From sending to the decoded reply."""
    queue: list[float] = field(default_factory=list)
    """As the server says: until the device began."""
    device: list[float] = field(default_factory=list)
    """As the server says: on the device."""
    errors: Counter[str] = field(default_factory=Counter)
    """By code."""
    seconds: float = 0.0
    """Since the first measured question was asked."""

    @property
    def answered(self) -> int:
        """Requests that got actions."""
        return len(self.round_trip)

    @property
    def done(self) -> int:
        """Requests that got an answer of any kind."""
        return self.answered + self.errors.total()


async def put_load(load: Load, on_reply: Callable[[Measurements], None] = lambda measured: None) -> Measurements:
    """Connect every client, ask once unmeasured, then measure.

    Raises:
        AddressInvalid, ServerUnavailable: no client could connect.
        ChunkwireError: the server refused the unmeasured question.
    """
    run = _Run(load, on_reply)
    async with asyncio.TaskGroup() as group:
        for seed in range(load.clients):
            group.create_task(run.client(seed))
    run.measured.seconds = time.perf_counter() - run.began
    return run.measured


class _Run:
    """The clients' common state."""

    def __init__(self, load: Load, on_reply: Callable[[Measurements], None]) -> None:
        self.load, self.on_reply = load, on_reply
        self.measured = Measurements()
        self.began = 0.0
        self._asked = 0
        self._observations: Sequence[Observation] = ()
        self._start = asyncio.Barrier(load.clients)

    async def client(self, seed: int) -> None:
        """One client: its connection is made anew when it is lost."""
        load, warm = self.load, False
        while not warm or self._goes_on():
            try:
                async with dial(load.url, load.connect_timeout, load.api_key) as connection:
                    questions = Questions(connection.spec, self._pool(connection.spec), load.batch, seed)
                    if not warm:
                        await self._warm_up(connection, questions)
                        warm = True
                    while self._goes_on():
                        self._asked += 1
                        await self._ask(connection, questions)
            except ServerUnavailable as error:
                if not warm:
                    raise
                self.measured.errors[error.code] += 1
                await asyncio.sleep(_PAUSE_S)

    def _pool(self, spec: PolicySpec) -> Sequence[Observation]:
        """The same for all clients: a batch of hundreds of images must not be in memory once for each."""
        if not self._observations:
            self._observations = random_observations(spec, self.load.batch, _POOL)
        return self._observations

    async def _warm_up(self, connection: Connection, questions: Questions) -> None:
        reply = await connection.ask(questions.next())
        if reply.error is not None and not isinstance(reply.error, Overloaded):
            raise reply.error
        self.measured.checkpoint = str(connection.spec.policy.checkpoint)
        await self._start.wait()
        self.began = self.began or time.perf_counter()

    def _goes_on(self) -> bool:
        if self.load.requests is not None:
            return self._asked < self.load.requests
        return time.perf_counter() - self.began < self.load.seconds

    async def _ask(self, connection: Connection, questions: Questions) -> None:
        begun = time.perf_counter()
        reply = await connection.ask(questions.next())
        elapsed = time.perf_counter() - begun
        if reply.chunk is not None:
            self._note(elapsed, reply.chunk.timing)
        else:
            assert reply.error is not None
            await self._note_error(reply.error)
        self.measured.seconds = time.perf_counter() - self.began
        self.on_reply(self.measured)

    def _note(self, elapsed: float, timing: Mapping[str, float]) -> None:
        self.measured.round_trip.append(1e3 * elapsed)
        self.measured.queue.append(timing.get("queue_ms", 0.0))
        self.measured.device.append(timing.get("infer_ms", 0.0))

    async def _note_error(self, error: ChunkwireError) -> None:
        self.measured.errors[error.code] += 1
        if isinstance(error, Overloaded):
            await asyncio.sleep(min((error.retry_after_ms or 0) / 1e3, _PAUSE_S))
