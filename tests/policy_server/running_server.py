"""A service and its transports on real sockets, in a thread of the test: a policy without a model, ready at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import numpy as np

from policy_server.engine.batcher import Batcher
from policy_server.metrics import Metrics
from policy_server.options import ServerOptions
from policy_server.policies.dummy import DummyPolicy, random_policy
from policy_server.service import PolicyService
from policy_server.transports.access import ApiKeys
from policy_server.transports.grpc import GrpcTransport
from policy_server.transports.websocket import WebSocketTransport

__all__ = ["GatedPolicy", "RunningServer"]


class GatedPolicy(DummyPolicy):
    """Answers with zeros, but holds the device until `gate` is set."""

    def __init__(self, spec):
        super().__init__(spec, self._wait)
        self.gate, self.entered = threading.Event(), threading.Event()

    def _wait(self, rows, noise):
        self.entered.set()
        assert self.gate.wait(30)
        return np.zeros(noise.shape)


class RunningServer:
    """Serves until `stop`."""

    def __init__(self, spec, policy=None, ready=True, **options):
        self.spec = spec
        self._policy = policy or random_policy(spec)
        self.options = ServerOptions(port=0, batch_sizes=(1, 4), **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port, self.grpc_port = self.run(self._start(ready))

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}"

    @property
    def grpc_address(self):
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def waiting(self):
        """Rows that wait for the device."""
        return self._batcher.waiting

    @property
    def unanswered(self):
        """Rows that are taken and not answered."""
        return self.service.admission.rows

    def run(self, coroutine, timeout=30):
        """The result of a coroutine in the server's loop."""
        return self.begin(coroutine).result(timeout)

    def begin(self, coroutine) -> Future:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def set_ready(self):
        self._loop.call_soon_threadsafe(self.service.set_ready)

    def stop(self):
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self, ready):
        metrics = Metrics()
        self._batcher = Batcher(self._policy, self.options.batch_sizes, self.options.max_waiting, metrics)
        self._batcher.start()
        self.service = PolicyService(self._policy, self._batcher, metrics, self.options)
        keys = ApiKeys(self.options.api_key_file) if self.options.api_key_file else None
        kinds = (WebSocketTransport, GrpcTransport)
        self._transports = [transport(self.service, self.options, keys) for transport in kinds]
        ports = [await transport.listen() for transport in self._transports]
        if ready:
            self.service.set_ready()
        return ports

    async def _close(self):
        await self.service.drain()
        for transport in self._transports:
            await transport.close()
        await asyncio.to_thread(self._batcher.stop)
