"""The WebSocket transport: connections, and plain HTTP pages on the same port."""

from __future__ import annotations

import http
import json

import websockets
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from policy_protocol.errors import ChunkwireError, CodecError, InternalError
from policy_server.log import log
from policy_server.options import ServerOptions
from policy_server.service import PolicyService
from policy_server.session import Question, Session

__all__ = ["WebSocketTransport"]


class WebSocketTransport:
    """One port: openpi's protocol, our envelopes, `/healthz`, `/readyz` and `/spec`.

    The socket listens at once, so that `/healthz` answers; a client that connects before the service is ready is
    greeted when it is. Envelope requests of one connection run concurrently, openpi's strictly in order.
    """

    def __init__(self, service: PolicyService, options: ServerOptions) -> None:
        self._service = service
        self._options = options
        self._server: Server | None = None

    async def listen(self) -> int:
        """Open the listening socket; returns its port. Raises `OSError` when it cannot be bound."""
        self._server = await serve(
            self._connection,
            self._options.host,
            self._options.port,
            process_request=self._page,
            max_size=self._options.max_message_bytes,  # a larger frame closes the connection with 1009
            compression=None,  # images are incompressible at this speed
            ping_interval=20,
            ping_timeout=120,  # a client busy simulating answers late
        )
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def close(self) -> None:
        """Close the socket and every connection; what was in flight must be answered by now."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _page(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if path == "/readyz":
            if self._service.ready:
                return connection.respond(http.HTTPStatus.OK, "OK\n")
            state = "draining" if self._service.draining else "compiling"
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{state}\n")
        if path == "/spec":
            response = connection.respond(http.HTTPStatus.OK, json.dumps(self._service.spec.to_wire(), indent=2) + "\n")
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "application/json"
            return response
        return None

    async def _connection(self, connection: ServerConnection) -> None:
        await self._service.wait_open()
        if self._service.draining:
            return
        session = Session(self._service.spec, self._options.max_batch)
        try:
            await connection.send(session.greeting())
            async for frame in connection:
                await self._request(connection, session, frame)
        except websockets.ConnectionClosed:
            log.debug("%s went away", connection.remote_address)

    async def _request(self, connection: ServerConnection, session: Session, frame: bytes | str) -> None:
        try:
            self._service.check_open()
            question = session.understand(frame)
        except ChunkwireError as error:
            await self._refused(connection, session, frame, error)
            return
        except Exception:
            log.exception("a request could not be understood")
            error = InternalError("The server failed; its log has the reason.")
            await self._refused(connection, session, frame, error)
            return
        task = self._service.begin(self._answer(connection, session, question))
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
        frame: bytes | str
        try:
            frame = session.answer(question, await self._service.answer(question))
        except ChunkwireError as error:
            frame = session.refuse(question.envelope_id, error)
        try:
            await connection.send(frame)
        except websockets.ConnectionClosed:
            log.debug("%s left before its answer", connection.remote_address)
