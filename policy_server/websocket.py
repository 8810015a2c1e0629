"""The WebSocket transport: connections, plain HTTP pages on the same port, and an orderly end."""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import Sequence

import numpy as np
import websockets
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from policy_protocol.errors import ChunkwireError, CodecError, Draining, InternalError
from policy_protocol.messages import ActionChunk
from policy_protocol.spec import PolicySpec
from policy_server.batcher import Batcher
from policy_server.log import log
from policy_server.session import Question, Session
from training.pi05.transforms.observation import ObservationTransform, Row

__all__ = ["MAX_MESSAGE_BYTES", "PolicyServer"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest request frame; a larger one closes the connection with 1009."""
_SEE_LOG = "The server failed; its log has the reason."


class PolicyServer:
    """Serves one policy on one port.

    The socket listens at once, so that `/healthz` answers; a client that connects before `ready` is greeted when it
    is. Envelope requests of one connection run concurrently, openpi's strictly in order.
    """

    def __init__(
        self, spec: PolicySpec, transform: ObservationTransform, batcher: Batcher, max_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        self._spec = spec
        self._transform = transform
        self._batcher = batcher
        self._max_bytes = max_bytes
        self._ready = asyncio.Event()
        self._draining = False
        self._in_flight: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> Server:
        """Open the listening socket."""
        return await serve(
            self._connection,
            host,
            port,
            process_request=self._page,
            max_size=self._max_bytes,
            compression=None,  # images are incompressible at this speed
            ping_interval=20,
            ping_timeout=120,  # a client busy simulating answers late
        )

    def set_ready(self) -> None:
        """Every shape is compiled: greet who waits and answer."""
        self._ready.set()

    async def drain(self, server: Server) -> None:
        """Refuse new requests, finish those in flight, then close every connection."""
        self._draining = True
        self._ready.set()  # clients that wait for their greeting must not keep the server from closing
        while self._in_flight:
            await asyncio.wait(self._in_flight)
        server.close()
        await server.wait_closed()

    def _page(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if path == "/readyz":
            if self._draining:
                return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
            if not self._ready.is_set():
                return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "compiling\n")
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if path == "/spec":
            response = connection.respond(http.HTTPStatus.OK, json.dumps(self._spec.to_wire(), indent=2) + "\n")
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "application/json"
            return response
        return None

    async def _connection(self, connection: ServerConnection) -> None:
        session = Session(self._spec)
        await self._ready.wait()
        if self._draining:
            return
        try:
            await connection.send(session.greeting())
            async for frame in connection:
                await self._request(connection, session, frame)
        except websockets.ConnectionClosed:
            log.debug("%s went away", connection.remote_address)

    async def _request(self, connection: ServerConnection, session: Session, frame: bytes | str) -> None:
        try:
            if self._draining:
                raise Draining("The server is shutting down and takes no new requests.")
            question = session.understand(frame)
        except ChunkwireError as error:
            await self._refused(connection, session, frame, error)
            return
        except Exception:
            log.exception("a request could not be understood")
            await self._refused(connection, session, frame, InternalError(_SEE_LOG))
            return
        task = asyncio.create_task(self._answer(connection, session, question))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        if question.envelope_id is None:
            await task

    async def _refused(
        self, connection: ServerConnection, session: Session, frame: bytes | str, error: ChunkwireError
    ) -> None:
        envelope_id = session.envelope_id_of(frame)
        if isinstance(error, CodecError) and envelope_id is None:
            await connection.close(1007, error.message[:120])
            return
        await connection.send(session.refuse(envelope_id, error))

    async def _answer(self, connection: ServerConnection, session: Session, question: Question) -> None:
        try:
            frame = session.answer(question, await self._infer(question))
        except ChunkwireError as error:
            frame = session.refuse(question.envelope_id, error)
        except Exception:
            log.exception("a request failed")
            frame = session.refuse(question.envelope_id, InternalError(_SEE_LOG))
        try:
            await connection.send(frame)
        except websockets.ConnectionClosed:
            log.debug("%s left before its answer", connection.remote_address)

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
