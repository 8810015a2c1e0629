"""One policy behind every transport: whether it takes requests, and their way through the transforms and the queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from policy_protocol.errors import ChunkwireError, Draining, InternalError, StepNotServed
from policy_protocol.jpeg import JPEG_FEATURE
from policy_protocol.messages import ActionChunk
from policy_protocol.spec import PolicySpec
from policy_protocol.steps import STEPS_FEATURE, StepsReply, StepsRequest
from policy_server.admission import Admission
from policy_server.engine.answers import answers
from policy_server.engine.batcher import Batcher
from policy_server.engine.one_checkpoint import of_one_checkpoint
from policy_server.log import log
from policy_server.metrics import Metrics
from policy_server.options import ServerOptions
from policy_server.policies.prepare import Preparation
from policy_server.policies.served import ServedPolicy
from policy_server.request_record import RequestRecord
from policy_server.session import Question
from policy_server.short_work import short_work

__all__ = ["PolicyService"]

T = TypeVar("T")
Asked = TypeVar("Asked", bound=Question | StepsRequest)

_LARGE_BYTES = 1 << 20
"""Requests above this are read on a thread: copying 60 MB of images takes 50 ms, in which `/healthz` must answer."""


class StepSource(Protocol):
    """The run whose steps can be served."""

    on_request: bool

    async def steps(self) -> tuple[int, ...]:
        """Numbers of the complete steps, ascending."""
        ...

    async def load(self, step: int) -> PolicySpec:
        """Serve a step; returns its spec. Raises `StepNotServed`."""
        ...


class PolicyService:
    """Shared by all transports; lives on the event loop, never blocks it.

    A transport asks for each request, in this order: `record`, `admit`, `answer`. Whatever happens to it is counted and
    logged there. All of it, from reading to sending, is one `begin`, so that draining loses nothing that has arrived.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        batcher: Batcher,
        metrics: Metrics,
        options: ServerOptions,
        source: StepSource | None = None,
    ) -> None:
        self._policy = policy
        self._preparation = Preparation(policy)
        self._batcher = batcher
        self.metrics = metrics
        self._options = options
        self._source = source
        self._open = asyncio.Event()
        self._in_flight: set[asyncio.Future[object]] = set()
        self.admission = Admission(options.max_waiting, metrics.seconds_for)
        """Who is connected, and how many rows of theirs are unanswered."""
        self._last_request = time.monotonic()
        self._ending = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the process is ending."""
        return self._ending.is_set()

    @property
    def spec(self) -> PolicySpec:
        """What clients are told of the policy."""
        return self._policy.spec

    @property
    def features(self) -> tuple[str, ...]:
        """What clients may do beyond asking with pixels for actions, as the greeting names it."""
        return (JPEG_FEATURE, STEPS_FEATURE) if self._source and self._source.on_request else (JPEG_FEATURE,)

    @property
    def ready(self) -> bool:
        """Whether every shape is compiled and requests are taken."""
        return self._open.is_set() and not self.draining

    @property
    def idle_s(self) -> float:
        """Seconds for which nobody has asked anything; 0 while a request is in flight."""
        return 0.0 if self._in_flight else time.monotonic() - self._last_request

    def set_ready(self) -> None:
        """Every shape is compiled: greet who waits and answer."""
        self._last_request = time.monotonic()
        self._open.set()

    async def wait_open(self) -> None:
        """Until the policy is ready, or will never be."""
        await self._open.wait()

    async def wait_draining(self) -> None:
        """Until new requests are refused."""
        await self._ending.wait()

    async def drain(self) -> None:
        """Refuse new requests and finish those in flight; refusals that come after are not waited for."""
        self._ending.set()
        self._open.set()  # clients that wait for their greeting must not keep the server from closing
        if self._in_flight:
            await asyncio.wait(set(self._in_flight))  # a client that goes on asking must not keep it from ending

    def begin(self, answering: Awaitable[T]) -> asyncio.Future[T]:
        """Run one request, its reading and sending included, as something that draining waits for."""
        task = asyncio.ensure_future(answering)
        self._in_flight.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Future[object]) -> None:
        self._in_flight.discard(task)
        self._last_request = time.monotonic()

    def record(self, transport: str, client: str, size: int) -> RequestRecord:
        """A request of `size` bytes has arrived."""
        self.metrics.received(transport, size)
        self._last_request = time.monotonic()
        return RequestRecord(self.metrics, transport, client, size)

    async def admit(self, record: RequestRecord, read: Callable[[], Asked]) -> Asked:
        """Read a request, a large one on a thread, unless the server takes no new ones.

        Raises:
            ChunkwireError: what the client is told; `Draining`, or what `read` found wrong.
        """
        with _ending(record):
            late = self.draining
            asked = await self._aside(record, read)
            if late:
                raise _draining(asked)
        if isinstance(asked, Question):
            record.understood(asked)
        return asked

    async def _aside(self, record: RequestRecord, work: Callable[[], T]) -> T:
        """Do what takes as long as the request is large: at once, or on a thread."""
        return await short_work(work) if record.size > _LARGE_BYTES else work()

    async def answer(self, question: Question, record: RequestRecord) -> ActionChunk:
        """Actions for a question.

        Raises:
            ChunkwireError: what the client is told; a failure of ours is logged and becomes `InternalError`.
        """
        count = len(question.observations)
        with _ending(record), self.admission.holding(record.client, count):  # a flood must not reach the transforms
            chunk = await self._infer(question, record)
        record.answered(chunk.timing)
        return chunk

    async def steps(self, request: StepsRequest, record: RequestRecord) -> StepsReply:
        """The steps that there are, after loading one where that is asked. Draining does not wait for it.

        Raises:
            ChunkwireError: what the client is told; `StepNotServed` where the step, or any step, cannot be loaded.
        """
        with _ending(record):
            if self._source is None:
                raise StepNotServed(
                    "This server serves one checkpoint. Start it with --follow RUN --follow-on-request."
                )
            spec = self.spec if request.load is None else await self._unless_draining(self._source.load(request.load))
            reply = StepsReply(request.id, await self._source.steps(), spec)
        record.told()
        return reply

    async def _unless_draining(self, work: Awaitable[T]) -> T:
        working, ending = asyncio.ensure_future(work), asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Draining("The server is shutting down and does not wait for the step to load.")
            return working.result()
        finally:
            working.cancel()
            ending.cancel()

    async def _infer(self, question: Question, record: RequestRecord) -> ActionChunk:
        expires = self._expires(question)
        rows = await self._preparation.rows(question, expires)
        question.forget_observations()

        def chunks(numbers: Sequence[int]) -> Awaitable[Sequence[ActionChunk]]:
            waiting = [(rows[number], question.row_seed(number)) for number in numbers]
            return self._chunks(waiting, expires, record.client)

        computed = await of_one_checkpoint(chunks, len(rows))
        return _together(computed) if question.batched else computed[0]

    async def _chunks(
        self, rows: Sequence[tuple[Any, int | None]], expires: float, client: str
    ) -> Sequence[ActionChunk]:
        """One chunk a row, each with its noise seed. Where one fails, or nobody waits, they leave the queue."""
        futures = self._batcher.submit_all(rows, expires, client)
        try:
            return await answers(futures)
        finally:
            for future in futures:
                future.cancel()

    def _expires(self, question: Question) -> float:
        """Moment of `time.perf_counter` after which the client wants no answer."""
        options = self._options
        asked = options.default_deadline_s if question.deadline_ms is None else question.deadline_ms / 1e3
        return question.received + min(asked, options.max_deadline_s)


def _together(chunks: Sequence[ActionChunk]) -> ActionChunk:
    """The rows of a batch."""
    actions = np.stack([chunk.actions for chunk in chunks])
    timing = {key: max(chunk.timing[key] for chunk in chunks) for key in chunks[0].timing}
    return ActionChunk(actions, timing, chunks[0].checkpoint)


def _draining(asked: Question | StepsRequest) -> Draining:
    error = Draining("The server is shutting down and takes no new requests.")
    error.request_id = asked.id if isinstance(asked, StepsRequest) else asked.envelope_id
    return error


@contextmanager
def _ending(record: RequestRecord) -> Iterator[None]:
    """Count and log a request that ends here, without actions; what is no error of ours becomes one."""
    try:
        yield
    except ChunkwireError as error:
        record.refused(error)
        raise
    except asyncio.CancelledError:
        record.cancelled()
        raise
    except Exception:
        log.exception("request %s failed", record.id)
        error = InternalError(f"The server failed on this request; its log has the reason under {record.id}.")
        record.refused(error)
        raise error from None
