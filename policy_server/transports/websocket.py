"""The WebSocket transport: connections, and plain HTTP pages on the same port."""

from __future__ import annotations

import asyncio
import functools
import http
import ssl

import websockets
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from policy_protocol.errors import ChunkwireError, CodecError, Unauthenticated
from policy_protocol.steps import StepsRequest
from policy_server.log import log
from policy_server.options import ServerOptions
from policy_server.request_record import RequestRecord
from policy_server.service import PolicyService
from policy_server.session import Question, Session
from policy_server.transports.access import ApiKeys
from policy_server.transports.pages import OPEN_PAGES, page, text_page

__all__ = ["WebSocketTransport"]

_NAME = "websocket"


class WebSocketTransport:
    """One port: openpi's protocol, our envelopes, `/healthz`, `/readyz`, `/metrics` and `/spec`.

    The socket listens at once, so that `/healthz` answers; a client that connects before the service is ready is
    greeted when it is. Envelope requests of one connection run concurrently, openpi's strictly in order.
    """

    def __init__(
        self,
        service: PolicyService,
        options: ServerOptions,
        keys: ApiKeys | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._service = service
        self._options = options
        self._keys = keys
        self._tls = tls
        self._server: Server | None = None

    async def listen(self) -> int:
        """Open the listening socket; returns its port. Raises `OSError` when it cannot be bound."""
        self._server = await serve(
            self._connection,
            self._options.host,
            self._options.port,
            ssl=self._tls,
            process_request=self._handshake,
            max_size=self._options.max_message_bytes,  # a larger frame closes the connection with 1009
            max_queue=2,  # unread requests stay with who sends them
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

    def _handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        """A page, a refusal, or None for a client that may come in."""
        path = request.path.partition("?")[0]
        if path not in OPEN_PAGES and self._keys is not None:
            try:
                self._keys.check(_authorization(request))
            except Unauthenticated as error:
                log.info("%s was turned away: %s", _address(connection), error.message)
                headers = {"WWW-Authenticate": "Api-Key"}
                return text_page(http.HTTPStatus.UNAUTHORIZED, f"{error.code}: {error.message}", headers)
        return page(self._service, path) or self._full()

    def _full(self) -> Response | None:
        assert self._server is not None
        most = self._options.max_connections
        if len(self._server.connections) < most:
            return None
        log.warning("a client was turned away: %d are connected (--max-connections)", most)
        text = f"overloaded: {most} clients are connected already (--max-connections). Try again later."
        return text_page(http.HTTPStatus.SERVICE_UNAVAILABLE, text, {"Retry-After": "1"})

    async def _connection(self, connection: ServerConnection) -> None:
        with self._service.metrics.connection(_NAME), self._service.admission.connected(_address(connection)):
            await self._service.wait_open()
            if self._service.draining:
                return
            visit = _Visit(connection, self._service, self._options)
            try:
                await visit.run()
            except websockets.ConnectionClosed:
                log.debug("%s went away", _address(connection))
            finally:
                visit.leave()


class _Visit:
    """One connected client, from its greeting to its leaving."""

    def __init__(self, connection: ServerConnection, service: PolicyService, options: ServerOptions) -> None:
        self._connection = connection
        self._service = service
        self._options = options
        self._session = Session(service.spec, options.max_batch, service.features)
        self._client = _address(connection)
        self._places = asyncio.Semaphore(options.max_unanswered)
        self._unanswered: set[asyncio.Future[None]] = set()

    async def run(self) -> None:
        """Greet, then answer until the client leaves."""
        await self._send(self._session.greeting())
        while await self._request():
            pass

    def leave(self) -> None:
        """The client is gone: what it asked for is worth nothing to anybody."""
        for task in self._unanswered:
            task.cancel()

    async def _next_frame(self) -> bytes | str | None:
        """The next request; None when the client was idle for too long and is hung up on."""
        limit = self._options.idle_connection_s
        while True:
            try:
                async with asyncio.timeout(limit or None):
                    return await self._connection.recv()
            except TimeoutError:
                if not self._unanswered:
                    break
        log.info("%s asked nothing for %g s and was hung up on (--idle-connection)", self._client, limit)
        await self._connection.close(1008, f"idle for {limit:g} s (--idle-connection)")
        return None

    async def _request(self) -> bool:
        """Begin the next request, until another one may be read; whether there was one."""
        await self._places.acquire()  # no more is read from a client that leaves its answers lying
        frame = await self._next_frame()
        if frame is None:
            return False
        record, may_go_on = self._service.record(_NAME, self._client, len(frame)), asyncio.Event()
        task = self._service.begin(self._handle(frame, record, may_go_on))
        del frame  # its arrays are views of it; whoever needs them holds it
        self._unanswered.add(task)
        task.add_done_callback(self._answered)
        task.add_done_callback(lambda _: may_go_on.set())
        await may_go_on.wait()
        if task.done():
            await task
        return True

    def _answered(self, task: asyncio.Future[None]) -> None:
        self._unanswered.discard(task)
        self._places.release()

    async def _handle(self, frame: bytes | str, record: RequestRecord, may_go_on: asyncio.Event) -> None:
        """Read, answer, send. Sets `may_go_on` early for envelopes only: openpi's requests are answered in order."""
        try:
            try:
                asked = await self._service.admit(record, functools.partial(self._session.understand, frame))
            except ChunkwireError as error:
                await self._refused(error)
                return
            del frame
            if isinstance(asked, StepsRequest) or asked.envelope_id is not None:
                may_go_on.set()
            reply = await self._answer(asked, record)
            del asked  # a client that reads slowly must not keep its images in our memory
            await self._send(reply)
        except websockets.ConnectionClosed:
            log.debug("%s left before its answer", self._client)

    async def _refused(self, error: ChunkwireError) -> None:
        if isinstance(error, CodecError) and error.request_id is None:
            reason = error.message.encode()[:120].decode(errors="ignore")  # a close frame holds 123 bytes of it
            await self._connection.close(1007, reason)
            return
        await self._send(self._session.refuse(error.request_id, error))

    async def _answer(self, asked: Question | StepsRequest, record: RequestRecord) -> bytes | str:
        service, session = self._service, self._session
        try:
            if isinstance(asked, StepsRequest):
                return session.tell(await service.steps(asked, record))
            return session.answer(asked, await service.answer(asked, record))
        except ChunkwireError as error:
            return session.refuse(asked.id if isinstance(asked, StepsRequest) else asked.envelope_id, error)

    async def _send(self, reply: bytes | str) -> None:
        limit = self._options.read_timeout_s
        try:
            async with asyncio.timeout(limit):
                await self._connection.send(reply)
        except TimeoutError:
            log.warning("%s read nothing for %g s and was cut off", self._client, limit)
            self._connection.transport.abort()
            return
        self._service.metrics.sent(_NAME, len(reply))


def _address(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)


def _authorization(request: Request) -> str | None:
    values = request.headers.get_all("Authorization")
    return values[0] if len(values) == 1 else None
