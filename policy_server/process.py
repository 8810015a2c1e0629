"""The life of a server process: load, listen, compile, answer, drain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from policy_protocol.errors import ChunkwireError
from policy_server.engine.batcher import Batcher
from policy_server.engine.compile_counter import CompileCounter
from policy_server.event_loop import run_event_loop, spare_what_stays
from policy_server.log import log
from policy_server.long_work import is_left_behind, long_work
from policy_server.metrics import Metrics
from policy_server.options import ServerOptions
from policy_server.policies.served import ServedPolicy
from policy_server.service import PolicyService
from policy_server.transports.access import ApiKeys, tls_context
from policy_server.transports.grpc import GrpcTransport
from policy_server.transports.websocket import WebSocketTransport

if TYPE_CHECKING:
    from policy_server.follow import Follower

__all__ = ["CannotListen", "Interrupted", "run_server"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class CannotListen(ChunkwireError):
    """The address cannot be bound."""

    code = "cannot_listen"


class Interrupted(ChunkwireError):
    """Ctrl-C; what was in flight is finished."""

    code = "interrupted"
    exit_code = 130


class _StoppedEarly(Exception):
    """A signal came before the server was ready."""


def run_server(policy: ServedPolicy, options: ServerOptions, follower: Follower | None = None) -> None:
    """Serve until SIGTERM, SIGINT or the idle timeout, then drain. A second signal ends the process at once.

    Args:
        follower: puts other steps into the policy, from when the server is ready until it drains.

    Raises:
        CannotListen: the port is taken or the address is not this machine's.
        AccessInvalid: the key file or the certificate cannot be used.
        Interrupted: after draining, when the signal was Ctrl-C.
    """
    try:
        run_event_loop(_run(policy, options, follower))
    except Interrupted as interrupted:
        _leave_behind(interrupted.exit_code)
        raise
    _leave_behind(0)


async def _run(policy: ServedPolicy, options: ServerOptions, follower: Follower | None) -> None:
    started, stop = time.monotonic(), _Stop()
    metrics = _metrics(policy)
    batcher = Batcher(policy, options.batch_sizes, options.max_waiting, metrics)
    metrics.watch_waiting(lambda: batcher.waiting)
    service = PolicyService(policy, batcher, metrics, options, follower)
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
        await _compile(batcher, stop)
        spare_what_stays()
        batcher.start()
        service.set_ready()
        log.info("ready on %s after %.1f s", " and ".join(urls), time.monotonic() - started)
        async with _following(follower):
            await _until_stopped(stop, service, options.idle_timeout_s)
        log.info("draining: finishing what is in flight")
    except _StoppedEarly:
        log.info("stopped while compiling")
    await service.drain()
    await transport.close()
    if grpc is not None:
        await grpc.close()
    await asyncio.to_thread(batcher.stop)
    if stop.number == signal.SIGINT:
        raise Interrupted("interrupted; everything in flight was answered.")


@contextlib.asynccontextmanager
async def _following(follower: Follower | None) -> AsyncIterator[None]:
    """The run is followed while the block runs."""
    task = None if follower is None else asyncio.create_task(follower.follow())
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


async def _compile(batcher: Batcher, stop: _Stop) -> None:
    """Every shape, unless a signal comes first: then no other shape is begun. Raises `_StoppedEarly` at once."""
    compiling = asyncio.create_task(long_work(lambda: batcher.compile(functools.partial(_progress, stop))))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({compiling, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            raise _StoppedEarly()
        compiling.result()
    finally:
        compiling.cancel()
        stopped.cancel()


def _progress(stop: _Stop, done: int, total: int, shape: str) -> None:
    if stop.is_set():
        raise _StoppedEarly()
    if done < total:
        log.info("compiling shape %d of %d: %s", done + 1, total, shape)


def _leave_behind(status: int) -> None:
    """End the process here when a thread still loads or compiles; it may take minutes more."""
    if is_left_behind():
        log.info("ended without waiting for what was loading or compiling")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)


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
