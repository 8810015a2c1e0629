"""The life of a server process: load, listen, compile, answer, drain."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Sequence

from policy_protocol.errors import ChunkwireError, Draining
from policy_server.batcher import Batcher
from policy_server.log import log
from policy_server.websocket import PolicyServer
from training.pi05.policy import Policy

__all__ = ["AddressInUse", "run_server"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class AddressInUse(ChunkwireError):
    """The port cannot be bound."""

    code = "address_in_use"


def run_server(policy: Policy, host: str, port: int, batch_sizes: Sequence[int]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once.

    Raises:
        AddressInUse: something else listens on the port.
    """
    asyncio.run(_run(policy, host, port, batch_sizes))


async def _run(policy: Policy, host: str, port: int, batch_sizes: Sequence[int]) -> None:
    started, stop = time.monotonic(), _stop_event()
    batcher = Batcher(policy, batch_sizes)
    server = PolicyServer(policy.spec, policy.transform, batcher)
    try:
        listening = await server.listen(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise AddressInUse(
            f"Port {port} on {host} is taken. Stop what uses it, or pass --port (0 takes a free one)."
        ) from None
    bound = next(iter(listening.sockets)).getsockname()[1]
    if host not in _LOOPBACK:
        log.warning("bound to %s without a key: anyone who reaches this port can use the policy", host)
    log.info("compiling; http://%s:%d/healthz answers already", host, bound)
    try:
        await asyncio.to_thread(batcher.compile, lambda done, total, shape: _progress(stop, done, total, shape))
        batcher.start()
        server.set_ready()
        log.info("ready on ws://%s:%d after %.1f s", host, bound, time.monotonic() - started)
        await stop.wait()
        log.info("draining: finishing what is in flight")
    except Draining:
        log.info("stopped while compiling")
    await server.drain(listening)
    await asyncio.to_thread(batcher.stop)


def _progress(stop: asyncio.Event, done: int, total: int, shape: str) -> None:
    if stop.is_set():
        raise Draining("The server was told to stop while it compiled.")
    if done < total:
        log.info("compiling shape %d of %d: %s", done + 1, total, shape)


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop
