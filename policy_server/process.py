"""The life of a server process: load, listen, compile, answer, drain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

from policy_protocol.errors import ChunkwireError, Draining
from policy_server.engine.batcher import Batcher
from policy_server.engine.compile_counter import CompileCounter
from policy_server.log import log
from policy_server.metrics import Metrics
from policy_server.options import ServerOptions
from policy_server.policies.served import ServedPolicy
from policy_server.service import PolicyService
from policy_server.transports.access import ApiKeys, tls_context
from policy_server.transports.grpc import GrpcTransport
from policy_server.transports.websocket import WebSocketTransport

__all__ = ["Background", "CannotListen", "Interrupted", "run_server"]

Background: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Starts what runs beside a server that is ready."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class CannotListen(ChunkwireError):
    """The address cannot be bound."""

    code = "cannot_listen"


class Interrupted(ChunkwireError):
    """Ctrl-C; what was in flight is finished."""

    code = "interrupted"
    exit_code = 130


def run_server(policy: ServedPolicy, options: ServerOptions, background: Background | None = None) -> None:
    """Serve until SIGTERM, SIGINT or the idle timeout, then drain. A second signal ends the process at once.

    Args:
        background: started once the server is ready, cancelled when it drains.

    Raises:
        CannotListen: the port is taken or the address is not this machine's.
        AccessInvalid: the key file or the certificate cannot be used.
        Interrupted: after draining, when the signal was Ctrl-C.
    """
    asyncio.run(_run(policy, options, background))


async def _run(policy: ServedPolicy, options: ServerOptions, background: Background | None) -> None:
    started, stop = time.monotonic(), _Stop()
    metrics = _metrics(policy)
    batcher = Batcher(policy, options.batch_sizes, options.max_waiting, metrics)
    metrics.watch_waiting(lambda: batcher.waiting)
    service = PolicyService(policy, batcher, metrics, options)
    keys = ApiKeys(options.api_key_file) if options.api_key_file else None
    tls = tls_context(options.tls_cert, options.tls_key) if options.tls_cert and options.tls_key else None
    transport = WebSocketTransport(service, options, keys, tls)
    address = await _listen(transport, options.host, options.port, "--port")
    urls = [f"{'wss' if tls else 'ws'}://{address}"]
    grpc = GrpcTransport(service, options, keys) if options.grpc else None
    if grpc is not None:
        grpc_address = await _listen(grpc, options.host, options.grpc_listen_port, "--grpc-port")
        urls.append(f"{'grpcs' if tls else 'grpc'}://{grpc_address}")
    if options.host not in _LOOPBACK and keys is None:
        log.warning("bound to %s without a key: anyone who reaches this port can use the policy", options.host)
    log.info("compiling; %s://%s/healthz answers already", "https" if tls else "http", address)
    try:
        await asyncio.to_thread(batcher.compile, lambda done, total, shape: _progress(stop, done, total, shape))
        batcher.start()
        service.set_ready()
        log.info("ready on %s after %.1f s", " and ".join(urls), time.monotonic() - started)
        async with _beside(background):
            await _until_stopped(stop, service, options.idle_timeout_s)
        log.info("draining: finishing what is in flight")
    except Draining:
        log.info("stopped while compiling")
    await service.drain()
    await transport.close()
    if grpc is not None:
        await grpc.close()
    await asyncio.to_thread(batcher.stop)
    if stop.number == signal.SIGINT:
        raise Interrupted("interrupted; everything in flight was answered.")


@contextlib.asynccontextmanager
async def _beside(background: Background | None) -> AsyncIterator[None]:
    """Runs the background while the block does."""
    task = None if background is None else asyncio.create_task(background())
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


def _metrics(policy: ServedPolicy) -> Metrics:
    metrics, compiled = Metrics(), CompileCounter()
    metrics.use_replicas(policy.replicas)
    metrics.watch_compiled(lambda: compiled.count)
    metrics.watch_checkpoint(lambda: policy.spec.policy.checkpoint)
    return metrics


async def _listen(transport: WebSocketTransport | GrpcTransport, host: str, port: int, flag: str) -> str:
    """Open a transport's socket; returns its address."""
    try:
        return f"{host}:{await transport.listen()}"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            advice = f"Port {port} on {host} is taken. Stop what uses it, or pass {flag} (0 takes a free one)."
        else:
            advice = f"{host}:{port} cannot be listened on ({error.strerror or error}). Check --host and {flag}."
        raise CannotListen(advice) from None


def _progress(stop: _Stop, done: int, total: int, shape: str) -> None:
    if stop.is_set():
        raise Draining("The server was told to stop while it compiled.")
    if done < total:
        log.info("compiling shape %d of %d: %s", done + 1, total, shape)


async def _until_stopped(stop: _Stop, service: PolicyService, idle_timeout_s: float) -> None:
    """Until a signal comes, or nobody has asked anything for `idle_timeout_s` seconds, 0 for ever."""
    while not stop.is_set():
        left = idle_timeout_s - service.idle_s if idle_timeout_s else None
        if left is not None and left <= 0:
            log.info("nobody asked anything for %g s: this server ends itself (--idle-timeout)", idle_timeout_s)
            return
        try:
            async with asyncio.timeout(left):
                await stop.wait()
        except TimeoutError:
            continue


class _Stop(asyncio.Event):
    """Set by the first SIGTERM or SIGINT; the second one ends the process at once."""

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if self.is_set():
            os._exit(128 + number)
        self.number = number
        self.set()
