"""A policy server on a real socket, without a model: what it answers is a function of the request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from policy_protocol import PROTOCOL, ActionChunk, InferReply, InferRequest, PolicySpec, pack, unpack
from policy_protocol.errors import StepNotServed
from policy_protocol.steps import STEPS_FEATURE, StepsReply, StepsRequest, is_steps_request

__all__ = ["FakePolicyServer", "MalformedFrame", "chunk_of"]


class MalformedFrame(Exception):
    """An answer that raises it closes the connection as the real server does after a frame that it cannot read."""


Answer = Callable[[InferRequest], "dict[str, Any] | str | list[Any] | None"]


def chunk_of(spec: PolicySpec, request: InferRequest, first: float = 0.0) -> dict[str, Any]:
    """A reply whose actions are zero but for the first number of each."""
    shape = (spec.policy.action_horizon, spec.action.dimension)
    actions = np.zeros(shape if request.batch is None else (request.batch, *shape), np.float32)
    actions[..., 0] = first
    return InferReply(request.id, ActionChunk(actions, {"infer_ms": 1.5})).to_wire()


class FakePolicyServer:
    """Serves until `stop`.

    Args:
        answer: request -> reply map; a string goes out as a text frame, a list as several; None closes the connection.
        greeting: the first frame, instead of the contract's.
        ready: connections are accepted at once but greeted when this is set, as by a server that compiles.
        status: HTTP status with which the first `refusals` handshakes are refused.
        most_bytes: largest frame that is taken.
        steps: step -> its spec, loaded on request; None is one that cannot be used. `spec` is served first.

    Attributes:
        requests: for actions, in order.
        served: the spec in place when each of them came.
        loads: the steps that were asked for, in order.
    """

    def __init__(
        self,
        spec: PolicySpec,
        answer: Answer | None = None,
        *,
        greeting: object = None,
        status: int = 503,
        refusals: int = 0,
        port: int = 0,
        ready: threading.Event | None = None,
        most_bytes: int | None = None,
        steps: Mapping[int, PolicySpec | None] | None = None,
    ) -> None:
        self.requests: list[InferRequest] = []
        self.served: list[PolicySpec] = []
        self.loads: list[int] = []
        self.spec, self._steps = spec, steps
        self.headers: list[Headers] = []
        self._answer: Answer = answer or (lambda request: chunk_of(spec, request))
        self._greeting = greeting
        self._status, self._refusals = status, refusals
        self._ready = ready
        self._connections: list[ServerConnection] = []
        self._server = serve(
            self._talk, "127.0.0.1", port, compression=None, max_size=most_bytes, process_request=self._admit
        )
        self.port: int = self._server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def refuse(self) -> None:
        """Refuse every handshake from here on."""
        self._refusals = 10**9

    def stop(self) -> None:
        """Close the port and every connection."""
        self._server.shutdown()
        for connection in self._connections:
            connection.close()
        self._thread.join(10)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.headers.append(request.headers)
        if self._refusals > 0:
            self._refusals -= 1
            return connection.respond(self._status, "not now\n")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        self._connections.append(connection)
        if self._ready is not None:
            self._ready.wait(30)
        greeting = self._greeting or self._own_greeting()
        connection.send(greeting if isinstance(greeting, (bytes, str)) else pack(greeting))
        try:
            for frame in connection:
                message = unpack(frame).value
                if is_steps_request(message):
                    connection.send(pack(self._reply_steps(StepsRequest.from_wire(message)).to_wire()))
                    continue
                request = InferRequest.from_wire(message)
                self.requests.append(request)
                self.served.append(self.spec)
                reply = self._answer(request)
                if reply is None:
                    return
                for one in reply if isinstance(reply, list) else [reply]:
                    connection.send(one if isinstance(one, str) else pack(one))
        except MalformedFrame as error:
            connection.close(1007, str(error))
        except ConnectionClosed:
            return

    def _own_greeting(self) -> dict[str, Any]:
        features = [] if self._steps is None else [STEPS_FEATURE]
        return {"protocol": PROTOCOL, "policy_spec": self.spec.to_wire(), "features": features}

    def _reply_steps(self, request: StepsRequest) -> StepsReply:
        assert self._steps is not None
        if request.load is not None:
            self.loads.append(request.load)
            spec = self._steps.get(request.load)
            if spec is None:
                return StepsReply(request.id, error=StepNotServed(f"Step {request.load} cannot be used."))
            self.spec = spec
        return StepsReply(request.id, tuple(self._steps), self.spec)
