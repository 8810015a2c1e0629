"""A policy server over gRPC on a real socket, without a model: what it answers is a function of the request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import grpc
from fake_policy_server import chunk_of

from policy_protocol import PROTOCOL, InferReply, InferRequest, PolicySpec
from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import ChunkwireError
from policy_protocol.policy_pb2_grpc import PolicyServiceServicer, add_PolicyServiceServicer_to_server
from policy_protocol.protobuf_messages import (
    ERROR_METADATA,
    PROCESS_METADATA,
    error_to_proto,
    reply_to_proto,
    request_from_proto,
)

__all__ = ["FakeGrpcServer"]

Answer = Callable[[InferRequest], "dict[str, Any] | pb.InferResponse | None"]


class FakeGrpcServer(PolicyServiceServicer):
    """Serves until `stop`. Takes what `FakePolicyServer` takes, as far as gRPC has it.

    Args:
        answer: request -> reply map, or a message; None ends the call as a broken connection does.
        before: refuses calls of `GetSpec` with these errors first, in order.
        protocol: what `GetSpec` says.
        status: of every call that ends with an error.
        most_bytes: largest message that is taken.
        processes: names that `GetSpec` and `Infer` give of the process, call by call, as behind a load balancer; both
            may share one iterator.
    """

    def __init__(
        self,
        spec: PolicySpec,
        answer: Answer | None = None,
        *,
        protocol: str = PROTOCOL,
        before: tuple[ChunkwireError, ...] = (),
        status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        port: int = 0,
        most_bytes: int = -1,
        processes: tuple[Iterator[str], Iterator[str]] | None = None,
    ) -> None:
        self.requests: list[InferRequest] = []
        self.headers: list[dict[str, Any]] = []
        self._answer: Answer = answer or (lambda request: chunk_of(spec, request))
        self._spec, self._protocol = spec, protocol
        self._told, self._answering = processes or (repeat(str(id(self))), repeat(str(id(self))))
        self._before, self._status = list(before), status
        options = (("grpc.max_receive_message_length", most_bytes), ("grpc.so_reuseport", 0))
        self._server = grpc.server(ThreadPoolExecutor(), options=options)
        add_PolicyServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.url = f"grpc://127.0.0.1:{self.port}"
        self._server.start()

    def stop(self) -> None:
        """Close the port and every call."""
        self._server.stop(None).wait(10)

    def GetSpec(self, request: pb.GetSpecRequest, context: grpc.ServicerContext) -> pb.GetSpecResponse:
        self.headers.append(dict(context.invocation_metadata()))
        if self._before:
            _abort(context, self._status, self._before.pop(0))
        context.send_initial_metadata(((PROCESS_METADATA, next(self._told)),))
        return pb.GetSpecResponse(protocol=self._protocol, spec_json=self._spec.to_json())

    def Infer(self, message: pb.InferRequest, context: grpc.ServicerContext) -> pb.InferResponse:
        request = request_from_proto(message)
        self.requests.append(request)
        reply = self._answer(request)
        if reply is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        context.send_initial_metadata(((PROCESS_METADATA, next(self._answering)),))
        if isinstance(reply, pb.InferResponse):
            return reply
        known = InferReply.from_wire(reply)
        if known.error is not None:
            _abort(context, self._status, known.error)
        return reply_to_proto(known)


def _abort(context: grpc.ServicerContext, status: grpc.StatusCode, error: ChunkwireError) -> None:
    context.set_trailing_metadata(((ERROR_METADATA, error_to_proto(error).SerializeToString()),))
    context.abort(status, error.message)
