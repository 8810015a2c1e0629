"""The life of a server process: load, listen, compile, answer, drain."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time

from policy_protocol.errors import ChunkwireError, Draining
from policy_server.engine.batcher import Batcher
from policy_server.log import log
from policy_server.options import ServerOptions
from policy_server.service import PolicyService
from policy_server.transports.websocket import WebSocketTransport
from training.pi05.policy import Policy

__all__ = ["CannotListen", "Interrupted", "run_server"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class CannotListen(ChunkwireError):
    """The address cannot be bound."""

    code = "cannot_listen"


class Interrupted(ChunkwireError):
    """Ctrl-C; what was in flight is finished."""

    code = "interrupted"
    exit_code = 130


def run_server(policy: Policy, options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once.

    Raises:
        CannotListen: the port is taken or the address is not this machine's.
        Interrupted: after draining, when the signal was Ctrl-C.
    """
    asyncio.run(_run(policy, options))


async def _run(policy: Policy, options: ServerOptions) -> None:
    started, stop = time.monotonic(), _Stop()
    batcher = Batcher(policy, options.batch_sizes, options.max_waiting)
    service = PolicyService(policy.spec, policy.transform, batcher)
    transport = WebSocketTransport(service, options)
    port = await _listen(transport, options)
    if options.host not in _LOOPBACK:
        log.warning("bound to %s without a key: anyone who reaches this port can use the policy", options.host)
    log.info("compiling; http://%s:%d/healthz answers already", options.host, port)
    try:
        await asyncio.to_thread(batcher.compile, lambda done, total, shape: _progress(stop, done, total, shape))
        batcher.start()
        service.set_ready()
        log.info("ready on ws://%s:%d after %.1f s", options.host, port, time.monotonic() - started)
        await stop.wait()
        log.info("draining: finishing what is in flight")
    except Draining:
        log.info("stopped while compiling")
    await service.drain()
    await transport.close()
    await asyncio.to_thread(batcher.stop)
    if stop.number == signal.SIGINT:
        raise Interrupted("interrupted; everything in flight was answered.")


async def _listen(transport: WebSocketTransport, options: ServerOptions) -> int:
    host, port = options.host, options.port
    try:
        return await transport.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            advice = f"Port {port} on {host} is taken. Stop what uses it, or pass --port (0 takes a free one)."
        else:
            advice = f"{host}:{port} cannot be listened on ({error.strerror or error}). Check --host and --port."
        raise CannotListen(advice) from None


def _progress(stop: _Stop, done: int, total: int, shape: str) -> None:
    if stop.is_set():
        raise Draining("The server was told to stop while it compiled.")
    if done < total:
        log.info("compiling shape %d of %d: %s", done + 1, total, shape)


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
