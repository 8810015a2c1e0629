"""The gRPC transport: the policy's service, health and reflection on one port."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from policy_protocol import policy_pb2 as pb
from policy_server.options import ServerOptions
from policy_server.service import PolicyService
from policy_server.transports.access import ApiKeys
from policy_server.transports.grpc_calls import PolicyCalls
from policy_server.transports.grpc_status import KeyCheck

__all__ = ["GrpcTransport"]

_SERVICE: str = pb.DESCRIPTOR.services_by_name["PolicyService"].full_name
_GRACE_S = 5.0
"""For the last replies to leave; streams are told to end before."""


class GrpcTransport:
    """`chunkwire.policy.v1.PolicyService` (policy.proto) on grpc.aio, in the event loop of the service.

    Health is NOT_SERVING until the service is ready, and while it drains.
    """

    def __init__(self, service: PolicyService, options: ServerOptions, keys: ApiKeys | None = None) -> None:
        self._service, self._options, self._keys = service, options, keys
        self._health = health.aio.HealthServicer()
        self._closing = asyncio.Event()
        self._server: grpc.aio.Server | None = None
        self._reporting: asyncio.Task[None] | None = None

    async def listen(self) -> int:
        """Open the listening socket; returns its port. Raises `OSError` when it cannot be bound."""
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server = grpc.aio.server(
            interceptors=() if self._keys is None else (KeyCheck(self._keys),),
            options=_channel_options(self._options),
            maximum_concurrent_rpcs=self._options.max_connections,  # a call is what a connection is to the WebSocket
        )
        calls = PolicyCalls(self._service, self._options, self._closing)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, calls.handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        port = self._bind(self._server)
        await self._server.start()
        self._reporting = asyncio.create_task(self._report_health())
        return port

    async def close(self) -> None:
        """Close the socket and every call; what was in flight must be answered by now."""
        self._closing.set()
        if self._server is not None:
            await self._server.stop(_GRACE_S)
        if self._reporting is not None:
            self._reporting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reporting

    def _bind(self, server: grpc.aio.Server) -> int:
        host, port = self._options.host, self._options.grpc_listen_port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._options.tls_cert is None or self._options.tls_key is None:
                return server.add_insecure_port(address)
            pair = (self._options.tls_key.read_bytes(), self._options.tls_cert.read_bytes())
            return server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        except RuntimeError:  # gRPC does not say why; the same attempt with a plain socket does
            with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
                raise

    async def _report_health(self) -> None:
        await self._service.wait_open()
        if not self._service.draining:
            await self._report(health_pb2.HealthCheckResponse.SERVING)
            await self._service.wait_draining()
        await self._health.enter_graceful_shutdown()

    async def _report(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", _SERVICE):
            await self._health.set(name, status)


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    idle_ms = round(options.idle_connection_s * 1e3) or 2**31 - 1
    return [
        ("grpc.max_receive_message_length", options.max_message_bytes),  # larger: RESOURCE_EXHAUSTED, with this limit
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a lottery
        ("grpc.max_connection_idle_ms", idle_ms),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 120_000),  # a client busy simulating answers late
    ]
