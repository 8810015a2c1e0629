"""A connection to a running server, over either transport: one question at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol
from urllib.parse import urlsplit

import grpc
import websockets
from websockets.asyncio.client import ClientConnection, connect

from policy_protocol import InferReply, InferRequest, PolicySpec, pack, policy_pb2, policy_pb2_grpc, unpack
from policy_protocol.errors import ChunkwireError, ProtocolViolation, ServerUnavailable
from policy_protocol.protobuf_messages import (
    ERROR_METADATA,
    error_from_proto,
    reply_from_proto,
    request_to_proto,
)

__all__ = ["AddressInvalid", "Connection", "dial"]

_REPLY_TIMEOUT_S = 300.0
_MAX_REPLY_BYTES = 256 * 2**20


class AddressInvalid(ChunkwireError):
    """An address that names no policy server."""

    code = "address_invalid"


class Connection(Protocol):
    """A server that answers."""

    spec: PolicySpec

    async def ask(self, request: InferRequest) -> InferReply:
        """The reply, an error of the server included. Raises `ServerUnavailable` when the connection is lost."""
        ...


@asynccontextmanager
async def dial(url: str, timeout: float, api_key: str | None = None) -> AsyncIterator[Connection]:
    """Connect to `ws://`, `wss://`, `grpc://` or `grpcs://HOST:PORT` and learn the spec.

    Raises:
        AddressInvalid: the address is none of these.
        ServerUnavailable: nobody answers within `timeout` seconds, or the key is refused.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DIALS or not parts.netloc:
        raise AddressInvalid(
            f"{url!r} is not the address of a policy server. Pass ws://HOST:PORT, wss://…, grpc://… or grpcs://…."
        )
    async with _DIALS[parts.scheme](url, timeout, api_key) as connection:
        yield connection


class _WebSocket:
    def __init__(self, url: str, socket: ClientConnection, spec: PolicySpec) -> None:
        self.spec = spec
        self._url, self._socket = url, socket

    async def ask(self, request: InferRequest) -> InferReply:
        try:
            await self._socket.send(pack(request.to_wire()))
            async with asyncio.timeout(_REPLY_TIMEOUT_S):
                frame = await self._socket.recv()
        except (OSError, websockets.ConnectionClosed, TimeoutError) as error:
            raise ServerUnavailable(f"The connection to {self._url} was lost: {error}.") from error
        if isinstance(frame, str):
            raise ProtocolViolation(f"{self._url} answered with text: {frame[:200]}")
        return InferReply.from_wire(unpack(frame).value)


@asynccontextmanager
async def _dial_websocket(url: str, timeout: float, api_key: str | None) -> AsyncIterator[Connection]:
    headers = {} if api_key is None else {"Authorization": f"Api-Key {api_key}"}
    try:
        async with asyncio.timeout(timeout):
            socket = await connect(url, compression=None, max_size=_MAX_REPLY_BYTES, additional_headers=headers)
            greeting = unpack(await socket.recv()).value  # comes when every shape is compiled
    except (OSError, websockets.WebSocketException, TimeoutError) as error:
        raise _unavailable(url, timeout, error) from error
    if not isinstance(greeting, dict) or "policy_spec" not in greeting:
        raise ProtocolViolation(f"{url} sent no policy spec on connecting, so it is not a server of ours.")
    try:
        yield _WebSocket(url, socket, PolicySpec.from_wire(greeting["policy_spec"]))
    finally:
        with suppress(AttributeError):  # websockets aborts a transport that is gone when the server hung up meanwhile
            await socket.close()


class _Grpc:
    def __init__(self, url: str, stub: policy_pb2_grpc.PolicyServiceStub, metadata: tuple, spec: PolicySpec) -> None:
        self.spec = spec
        self._url, self._stub, self._metadata = url, stub, metadata

    async def ask(self, request: InferRequest) -> InferReply:
        call = self._stub.Infer(request_to_proto(request), timeout=_REPLY_TIMEOUT_S, metadata=self._metadata)
        try:
            return reply_from_proto(await call)
        except grpc.aio.AioRpcError as error:
            for name, value in error.trailing_metadata() or ():
                if name == ERROR_METADATA:
                    return InferReply(request.id, error=error_from_proto(policy_pb2.Error.FromString(value)))
            raise ServerUnavailable(f"The call to {self._url} failed: {error.details()}.") from error


@asynccontextmanager
async def _dial_grpc(url: str, timeout: float, api_key: str | None) -> AsyncIterator[Connection]:
    parts = urlsplit(url)
    options = [("grpc.max_receive_message_length", _MAX_REPLY_BYTES), ("grpc.max_send_message_length", -1)]
    options.append(("grpc.use_local_subchannel_pool", 1))  # every client a connection of its own
    if parts.scheme == "grpcs":
        channel = grpc.aio.secure_channel(parts.netloc, grpc.ssl_channel_credentials(), options)
    else:
        channel = grpc.aio.insecure_channel(parts.netloc, options)
    metadata = () if api_key is None else (("authorization", f"Api-Key {api_key}"),)
    async with channel:
        stub = policy_pb2_grpc.PolicyServiceStub(channel)
        try:
            async with asyncio.timeout(timeout):
                spec = await _ready_spec(stub, metadata)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            raise _unavailable(url, timeout, error) from error
        yield _Grpc(url, stub, metadata, spec)


async def _ready_spec(stub: policy_pb2_grpc.PolicyServiceStub, metadata: tuple) -> PolicySpec:
    """The spec, asked for until the server is there and has compiled every shape."""
    while True:
        try:
            answer = await stub.GetSpec(policy_pb2.GetSpecRequest(), metadata=metadata)
            return PolicySpec.from_json(answer.spec_json)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or not error.trailing_metadata():
                raise
        await asyncio.sleep(0.5)


_DIALS = {"ws": _dial_websocket, "wss": _dial_websocket, "grpc": _dial_grpc, "grpcs": _dial_grpc}


def _unavailable(url: str, timeout: float, error: Exception) -> ServerUnavailable:
    if isinstance(error, TimeoutError):
        reason = f"nothing came within {timeout:g} s; --connect-timeout allows more"
    elif isinstance(error, grpc.aio.AioRpcError):
        reason = str(error.details())
    else:
        reason = str(error)
    return ServerUnavailable(f"No policy server answers at {url}: {reason}. Start one: serve --checkpoint DIR")
