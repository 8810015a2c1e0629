"""The rules over the bare session, the WebSocket and gRPC."""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from websockets.sync.client import connect

from policy_protocol import InferReply, InferRequest, pack, unpack
from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import ChunkwireError
from policy_protocol.policy_pb2_grpc import PolicyServiceStub
from policy_protocol.protobuf_messages import (
    ERROR_METADATA,
    error_from_proto,
    reply_from_proto,
    request_to_proto,
)
from policy_protocol.protobuf_values import observation_to_proto
from policy_server import Session

from .compliance import Compliance
from .conftest import LIBERO
from .running_server import RunningServer


class BareLine:
    """Frames go straight to a session; the service answers its questions."""

    def __init__(self, server):
        self.server = server
        self._session = Session(server.spec, server.options.max_batch, server.service.features)

    def ask(self, request):
        return self.begin_all([request])()[0]

    def ask_fields(self, **fields):
        return self._read(self.server.run(self._answer(pack(fields))))

    def begin_all(self, requests):
        futures = [self.server.begin(self._answer(pack(request.to_wire()))) for request in requests]
        return lambda: [self._read(future.result(30)) for future in futures]

    def close(self):
        pass

    async def _answer(self, frame):
        service, session = self.server.service, self._session
        record = service.record("bare", "test", len(frame))
        try:
            question = await service.admit(record, lambda: session.understand(frame))
        except ChunkwireError as error:
            return session.refuse(error.request_id, error)
        try:
            return session.answer(question, await service.begin(service.answer(question, record)))
        except ChunkwireError as error:
            return session.refuse(question.envelope_id, error)

    @staticmethod
    def _read(frame):
        return InferReply.from_wire(unpack(frame).value)


class WebSocketLine:
    """One connection for single requests, one more for each crowd of them."""

    def __init__(self, server):
        self.server = server
        self._connections = ExitStack()
        self._single = self._dial()

    def ask(self, request):
        return self.ask_fields(**request.to_wire())

    def ask_fields(self, **fields):
        self._single.send(pack(fields))
        return self._receive(self._single)

    def begin_all(self, requests):
        connection = self._dial()
        for request in requests:
            connection.send(pack(request.to_wire()))
        return lambda: [self._receive(connection) for _ in requests]

    def close(self):
        self._connections.close()

    def _dial(self):
        connection = self._connections.enter_context(connect(self.server.url, compression=None, max_size=None))
        connection.recv(timeout=30)
        return connection

    @staticmethod
    def _receive(connection):
        return InferReply.from_wire(unpack(connection.recv(timeout=30)).value)


class GrpcLine:
    """Single requests by `Infer`, crowds by `InferStream`."""

    def __init__(self, server):
        self.server = server
        self._channel = grpc.insecure_channel(server.grpc_address, [("grpc.max_receive_message_length", -1)])
        self._stub = PolicyServiceStub(self._channel)
        self._pool = ThreadPoolExecutor()

    def ask(self, request):
        return self._infer(request_to_proto(request))

    def ask_fields(self, observation, extra=None, **fields):
        message = pb.InferRequest(observation=observation_to_proto(observation), **fields)
        unknown = b"" if extra is None else b"\xf8\x01\x01"  # field 31, a number
        return self._infer(pb.InferRequest.FromString(message.SerializeToString() + unknown))

    def begin_all(self, requests):
        messages = queue.Queue()
        for request in requests:
            messages.put(request_to_proto(request))
        messages.put(None)
        replies = self._stub.InferStream(iter(messages.get, None), timeout=30)
        return self._pool.submit(lambda: [reply_from_proto(reply) for reply in replies]).result

    def close(self):
        self._channel.close()
        self._pool.shutdown()

    def _infer(self, message):
        try:
            return reply_from_proto(self._stub.Infer(message, timeout=30))
        except grpc.RpcError as error:
            (blob,) = [value for key, value in error.trailing_metadata() if key == ERROR_METADATA]
            return InferReply(message.id, error=error_from_proto(pb.Error.FromString(blob)))


def dialer(kind):
    @pytest.fixture
    def dial(self):
        lines = []

        def dialed(server):
            lines.append(kind(server))
            return lines[-1]

        yield dialed
        for line in lines:
            line.close()

    return dial


class TestBareSession(Compliance):
    dial = dialer(BareLine)


class TestWebSocket(Compliance):
    dial = dialer(WebSocketLine)


class TestGrpc(Compliance):
    dial = dialer(GrpcLine)


@pytest.mark.parametrize("batch", [None, 2])
def test_the_same_request_gets_the_same_actions_over_all_three(observation, batch):
    if batch:
        observation = {
            key: value if key == "prompt" else np.stack([value] * batch) for key, value in observation.items()
        }
    server = RunningServer(LIBERO)
    lines = [kind(server) for kind in (BareLine, WebSocketLine, GrpcLine)]
    try:
        request = InferRequest(4, observation, noise_seed=11, batch=batch)
        bare, websocket, grpc_ = (line.ask(request).chunk.actions for line in lines)
    finally:
        for line in lines:
            line.close()
        server.stop()
    np.testing.assert_array_equal(bare, websocket)
    np.testing.assert_array_equal(bare, grpc_)
