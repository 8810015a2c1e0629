"""One `InferStream` call, from its first request to its end."""

from __future__ import annotations

import asyncio

import grpc

from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import ChunkwireError, DeadlineExceeded, Draining
from policy_protocol.messages import InferReply
from policy_protocol.protobuf_messages import reply_to_proto
from policy_server.log import log
from policy_server.options import ServerOptions
from policy_server.request_record import RequestRecord
from policy_server.service import PolicyService
from policy_server.session import Question, Session
from policy_server.transports.grpc_question import TRANSPORT, read_question
from policy_server.transports.grpc_status import abort, peer_of

__all__ = ["InferStream"]


class InferStream:
    """Requests of one stream run concurrently; replies go out one at a time, as they are ready."""

    def __init__(
        self,
        context: grpc.aio.ServicerContext,
        service: PolicyService,
        options: ServerOptions,
        closing: asyncio.Event,
    ) -> None:
        self._context, self._service, self._options = context, service, options
        self._closing = closing
        self._session = Session(service.spec, options.max_batch)
        self._client = peer_of(context)
        self._places = asyncio.Semaphore(options.max_unanswered)
        self._unanswered: set[asyncio.Future[None]] = set()
        self._writing = asyncio.Lock()
        self._failure: asyncio.Future[ChunkwireError] = asyncio.get_running_loop().create_future()
        """Why the stream cannot go on."""
        self._stuck: asyncio.Future[None] | None = None
        """The reply that the client does not take."""

    async def run(self) -> None:
        """Answer until the client has nothing more to ask, leaves, or is cut off."""
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            while (data := await self._next(closing)) is not None:
                self._request(data)
                del data  # its arrays are views of it; whoever needs them holds it
            while self._unanswered and not self._failure.done():
                await asyncio.wait({*self._unanswered, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                await self._end(self._failure.result())
        finally:  # what a client that has left asked for is worth nothing to anybody
            for task in (closing, *self._unanswered):
                task.cancel()

    async def _next(self, closing: asyncio.Future[object]) -> bytes | None:
        """The next request, once there is room for it; None when there is none."""
        reading = asyncio.ensure_future(self._read())
        try:
            while not (done := await self._first_of({reading, closing, self._failure})):
                if not self._unanswered:
                    self._fail(DeadlineExceeded(self._idle_text()))
        finally:
            reading.cancel()
        if closing in done:
            self._fail(Draining("The server is shutting down."))
        return None if self._failure.done() else reading.result()

    async def _first_of(self, ends: set[asyncio.Future]) -> set[asyncio.Future]:
        limit = self._options.idle_connection_s or None
        return (await asyncio.wait(ends, timeout=limit, return_when=asyncio.FIRST_COMPLETED))[0]

    async def _read(self) -> bytes | None:
        await self._places.acquire()  # no more is read from a client that leaves its answers lying
        data = await self._context.read()
        return None if data is grpc.aio.EOF else data

    def _request(self, data: bytes) -> None:
        record = self._service.record(TRANSPORT, self._client, len(data))
        task = self._service.begin(self._handle(data, record))
        self._unanswered.add(task)
        task.add_done_callback(self._answered)

    async def _handle(self, data: bytes, record: RequestRecord) -> None:
        service, session = self._service, self._session
        try:
            question = await service.admit(record, lambda: read_question(service, session, data))
        except ChunkwireError as error:
            if error.request_id is None:
                self._fail(error)
            else:
                await self._write(reply_to_proto(InferReply(error.request_id, error=error)))
            return
        del data
        reply = await self._answer(question, record)
        del question  # a client that reads slowly must not keep its images in our memory
        await self._write(reply_to_proto(reply))

    def _answered(self, task: asyncio.Future[None]) -> None:
        self._unanswered.discard(task)
        self._places.release()

    async def _answer(self, question: Question, record: RequestRecord) -> InferReply:
        assert question.envelope_id is not None
        try:
            return self._session.reply(question, await self._service.answer(question, record))
        except ChunkwireError as error:
            return InferReply(question.envelope_id, error=error)

    async def _write(self, reply: pb.InferResponse) -> None:
        async with self._writing:
            if self._stuck is not None:
                return
            sending = asyncio.ensure_future(self._context.write(reply))
            sending.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                await asyncio.wait({sending}, timeout=self._options.read_timeout_s)
            except asyncio.CancelledError:
                self._stuck = sending
                raise
            self._sent(reply, sending)

    def _sent(self, reply: pb.InferResponse, sending: asyncio.Future[None]) -> None:
        if not sending.done():
            limit = self._options.read_timeout_s
            log.warning("%s read nothing for %g s and was cut off", self._client, limit)
            self._stuck = sending
            self._fail(DeadlineExceeded(f"The client read nothing for {limit:g} s."))
        elif error := sending.exception():
            log.debug("%s left before its answer: %r", self._client, error)
        else:
            self._service.metrics.sent(TRANSPORT, reply.ByteSize())

    async def _end(self, error: ChunkwireError) -> None:
        """End the call with an error. gRPC takes it only once the reply before it is taken, or the client is gone."""
        for task in self._unanswered:
            task.cancel()
        if self._unanswered:
            await asyncio.wait(set(self._unanswered))
        if self._stuck is not None:
            await asyncio.wait({self._stuck})
        await abort(self._context, error)

    def _idle_text(self) -> str:
        limit = self._options.idle_connection_s
        log.info("%s asked nothing for %g s and was hung up on (--idle-connection)", self._client, limit)
        return f"Nothing was asked for {limit:g} s (--idle-connection)."

    def _fail(self, error: ChunkwireError) -> None:
        if not self._failure.done():
            self._failure.set_result(error)
