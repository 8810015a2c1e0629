"""How an error ends a gRPC call: its status, and the whole of it in the trailing metadata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import grpc

from policy_protocol.errors import (
    ChunkwireError,
    CodecError,
    DeadlineExceeded,
    Draining,
    InvalidObservation,
    Overloaded,
    ServerUnavailable,
    StepNotServed,
    Unauthenticated,
)
from policy_protocol.protobuf_messages import ERROR_METADATA, error_to_proto
from policy_server.log import log
from policy_server.transports.access import ApiKeys

__all__ = ["KeyCheck", "abort", "peer_of"]

_STATUSES = {
    CodecError.code: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidObservation.code: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated.code: grpc.StatusCode.UNAUTHENTICATED,
    Overloaded.code: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded.code: grpc.StatusCode.DEADLINE_EXCEEDED,
    StepNotServed.code: grpc.StatusCode.FAILED_PRECONDITION,
    Draining.code: grpc.StatusCode.UNAVAILABLE,
    ServerUnavailable.code: grpc.StatusCode.UNAVAILABLE,
}
_OPEN = "/grpc.health.v1.Health/Check"
"""Like `/healthz`, for whoever restarts dead servers. `Watch` lasts: it would hold one of --max-connections calls."""


async def abort(context: grpc.aio.ServicerContext, error: ChunkwireError) -> NoReturn:
    """End the call with an error; a code without a status of its own is INTERNAL."""
    status = _STATUSES.get(error.code, grpc.StatusCode.INTERNAL)
    message = error_to_proto(error)
    await context.abort(status, message.message, ((ERROR_METADATA, message.SerializeToString()),))
    raise AssertionError("abort returns to nobody")


def peer_of(context: grpc.aio.ServicerContext) -> str:
    """Address of who asks, as the WebSocket writes it: `127.0.0.1:40000`."""
    return context.peer().partition(":")[2].replace("%5B", "[").replace("%5D", "]")


class KeyCheck(grpc.aio.ServerInterceptor):
    """Turns calls without a key away; single health checks need none."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def intercept_service(self, continuation, details):
        """The call's own handler, or one that refuses it."""
        if details.method == _OPEN:
            return await continuation(details)
        try:
            self._keys.check(_authorization(details.invocation_metadata))
        except Unauthenticated as error:
            return _refusal(error)
        return await continuation(details)


def _authorization(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    values = [value for name, value in metadata if name == "authorization"]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _refusal(error: Unauthenticated) -> grpc.RpcMethodHandler:
    async def refuse(_: object, context: grpc.aio.ServicerContext) -> None:
        log.info("%s was turned away: %s", peer_of(context), error.message)
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)  # of any kind of call: it reads nothing first
