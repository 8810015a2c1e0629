"""The calls of `chunkwire.policy.v1.PolicyService`: decode, ask the service, encode."""

from __future__ import annotations

import asyncio
import secrets

import grpc
from google.protobuf.message import Message

from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import ChunkwireError
from policy_protocol.protobuf_messages import PROCESS_METADATA, reply_to_proto, spec_to_proto, steps_reply_to_proto
from policy_server.options import ServerOptions
from policy_server.service import PolicyService
from policy_server.session import Session
from policy_server.transports.grpc_question import TRANSPORT, check_ready, read_question, read_steps
from policy_server.transports.grpc_status import abort, peer_of
from policy_server.transports.grpc_stream import InferStream

__all__ = ["PolicyCalls"]


class PolicyCalls:
    """Answers calls. Requests come as bytes, so that garbage is counted and answered as on the WebSocket.

    Args:
        closing: set when the transport closes; streams end then.
    """

    def __init__(self, service: PolicyService, options: ServerOptions, closing: asyncio.Event) -> None:
        self._service, self._options, self._closing = service, options, closing
        self._process = ((PROCESS_METADATA, secrets.token_hex(8)),)

    @property
    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Name of each method, and what answers it."""

        def write(message: Message) -> bytes:
            return message.SerializeToString()

        return {
            "GetSpec": grpc.unary_unary_rpc_method_handler(self._get_spec, response_serializer=write),
            "Infer": grpc.unary_unary_rpc_method_handler(self._infer, response_serializer=write),
            "Steps": grpc.unary_unary_rpc_method_handler(self._steps, response_serializer=write),
            "InferStream": grpc.stream_stream_rpc_method_handler(self._infer_stream, response_serializer=write),
        }

    async def _get_spec(self, _: bytes, context: grpc.aio.ServicerContext) -> pb.GetSpecResponse:
        try:
            check_ready(self._service)
        except ChunkwireError as error:
            await abort(context, error)
        await context.send_initial_metadata(self._process)
        return spec_to_proto(self._service.spec, self._service.features)

    async def _infer(self, data: bytes, context: grpc.aio.ServicerContext) -> pb.InferResponse:
        service = self._service
        answering = service.begin(self._reply(data, peer_of(context), context.time_remaining()))
        del data  # its arrays are views of it; whoever needs them holds it
        try:
            reply = await answering
        except ChunkwireError as error:
            await abort(context, error)
        await context.send_initial_metadata(self._process)
        service.metrics.sent(TRANSPORT, reply.ByteSize())
        return reply

    async def _reply(self, data: bytes, client: str, remaining_s: float | None) -> pb.InferResponse:
        service, session = self._service, Session(self._service.spec, self._options.max_batch)
        record = service.record(TRANSPORT, client, len(data))
        with service.admission.calling(client):
            question = await service.admit(record, lambda: read_question(service, session, data, remaining_s))
            del data
            return reply_to_proto(session.reply(question, await service.answer(question, record)))

    async def _steps(self, data: bytes, context: grpc.aio.ServicerContext) -> pb.StepsResponse:
        service, record = self._service, self._service.record(TRANSPORT, peer_of(context), len(data))

        async def reply() -> pb.StepsResponse:
            request = await service.admit(record, lambda: read_steps(service, data))
            return steps_reply_to_proto(await service.steps(request, record))

        answering = service.begin(reply())
        try:
            return await answering
        except ChunkwireError as error:
            await abort(context, error)

    async def _infer_stream(self, _: object, context: grpc.aio.ServicerContext) -> None:
        service = self._service
        with service.metrics.connection(TRANSPORT), service.admission.connected(peer_of(context)):
            await InferStream(context, service, self._options, self._closing).run()
