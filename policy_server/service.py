"""One policy behind every transport: whether it takes requests, and their way through the transforms and the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import numpy as np

from policy_protocol.errors import ChunkwireError, Draining, InternalError
from policy_protocol.messages import ActionChunk
from policy_protocol.spec import PolicySpec
from policy_server.engine.batcher import Batcher
from policy_server.log import log
from policy_server.session import Question
from training.pi05.transforms.observation import ObservationTransform, Row

__all__ = ["PolicyService"]

T = TypeVar("T")


class PolicyService:
    """Shared by all transports; lives on the event loop, never blocks it."""

    def __init__(self, spec: PolicySpec, transform: ObservationTransform, batcher: Batcher) -> None:
        self.spec = spec
        self._transform = transform
        self._batcher = batcher
        self._open = asyncio.Event()
        self._in_flight: set[asyncio.Future[object]] = set()
        self.draining = False
        """Whether new requests are refused because the process is ending."""

    @property
    def ready(self) -> bool:
        """Whether every shape is compiled and requests are taken."""
        return self._open.is_set() and not self.draining

    def set_ready(self) -> None:
        """Every shape is compiled: greet who waits and answer."""
        self._open.set()

    async def wait_open(self) -> None:
        """Until the policy is ready, or will never be."""
        await self._open.wait()

    async def drain(self) -> None:
        """Refuse new requests and finish those in flight."""
        self.draining = True
        self._open.set()  # clients that wait for their greeting must not keep the server from closing
        while self._in_flight:
            await asyncio.wait(self._in_flight)

    def begin(self, answering: Awaitable[T]) -> asyncio.Future[T]:
        """Run one request's answer, sending included, as something that draining waits for."""
        task = asyncio.ensure_future(answering)
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        return task

    def check_open(self) -> None:
        """Raises `Draining` when the server takes no new requests."""
        if self.draining:
            raise Draining("The server is shutting down and takes no new requests.")

    async def answer(self, question: Question) -> ActionChunk:
        """Actions for a question.

        Raises:
            ChunkwireError: what the client is told; a failure of ours is logged and becomes `InternalError`.
        """
        try:
            return await self._infer(question)
        except ChunkwireError:
            raise
        except Exception:
            log.exception("a request failed")
            raise InternalError("The server failed; its log has the reason.") from None

    async def _infer(self, question: Question) -> ActionChunk:
        rows = await asyncio.to_thread(lambda: [self._transform(observation) for observation in question.observations])
        chunks = await self._chunks(question, rows)
        if not question.batched:
            return chunks[0]
        actions = np.stack([chunk.actions for chunk in chunks])
        return ActionChunk(actions, {key: max(chunk.timing[key] for chunk in chunks) for key in chunks[0].timing})

    async def _chunks(self, question: Question, rows: Sequence[Row]) -> Sequence[ActionChunk]:
        """One chunk a row; when one row fails, the others are taken out of the queue."""
        futures: list[asyncio.Future[ActionChunk]] = []
        try:
            for index, row in enumerate(rows):
                waiting = self._batcher.submit(row, question.row_seed(index), question.expires)
                futures.append(asyncio.wrap_future(waiting))
            return await asyncio.gather(*futures)
        except ChunkwireError:
            for future in futures:
                future.cancel()
            raise
