"""`PolicyClient`: ask a policy server for action chunks over WebSocket."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed

from policy_protocol import ActionChunk, EpisodeMoment, InferReply, InferRequest, Observation, PolicySpec, pack, unpack
from policy_protocol.errors import CodecError, ProtocolViolation, RemoteError, ServerUnavailable
from sim_client.option_checks import require_seconds
from sim_client.wire.connecting import open_connection, read_greeting
from sim_client.wire.exchange import Exchange
from sim_client.wire.server_address import websocket_url

__all__ = ["Policy", "PolicyClient"]


class Policy(Protocol):
    """Whatever answers observations with action chunks."""

    spec: PolicySpec

    def infer(
        self,
        observation: Observation,
        *,
        noise_seed: int | None = None,
        episode: EpisodeMoment | None = None,
        batch: int | None = None,
        deadline_ms: float | None = None,
    ) -> ActionChunk:
        """One action chunk for one observation, or N for `batch` N."""

    def close(self) -> None:
        """Hang up."""


class PolicyClient:
    """A connection to a policy server. One question at a time; use one client per thread.

    ```python
    with PolicyClient("ws://127.0.0.1:8000") as policy:
        chunk = policy.infer({"observation/image": image, "observation/state": state, "prompt": "Pull a cube."})
        robot.execute(chunk.actions[: policy.spec.policy.execution_horizon])
    ```

    Args:
        url: `ws://host:port`, `wss://host:port` or `host:port`.
        connect_timeout: seconds for which a server that does not answer, or is still compiling, is tried again.
        reply_timeout: seconds after which a silent server counts as lost.
        api_key: sent as `Authorization: Api-Key …`.
        tls: certificates to trust for `wss`; the system's by default.
        on_wait: called once with a sentence when the server does not answer at once.

    Raises:
        InvalidOption: `url` is no address, or a timeout is not above 0.
        ServerUnavailable: no server answered in time.
        ProtocolViolation, SpecInvalid: it is no Chunkwire server, or its spec is damaged.

    Attributes:
        url: the full address.
        spec: what the policy demands.
        metadata: the server's first frame.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float = 30.0,
        reply_timeout: float = 300.0,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.url = websocket_url(url)
        require_seconds("--connect-timeout", connect_timeout)
        require_seconds("--reply-timeout", reply_timeout)
        self._reply_timeout = reply_timeout
        self._stack, self._connection, frame = open_connection(
            self.url, timeout=connect_timeout, api_key=api_key, tls=tls, on_wait=on_wait
        )
        try:
            greeting = read_greeting(frame, self.url)
        except BaseException:
            self.close()
            raise
        self.spec: PolicySpec = greeting.spec
        self.metadata: Mapping[str, Any] = greeting.metadata
        self._exchange = Exchange(self.spec)

    def infer(
        self,
        observation: Observation,
        *,
        noise_seed: int | None = None,
        episode: EpisodeMoment | None = None,
        batch: int | None = None,
        deadline_ms: float | None = None,
    ) -> ActionChunk:
        """Ask for the actions to take from here.

        Args:
            observation: wire key -> image (height, width, 3) uint8, state (state_dim,) float32, prompt. With `batch`
                N every array has a leading N.
            noise_seed: fixes the flow's noise; the server draws one otherwise.
            episode: which moment this is, for the server's log; the model never sees it.
            deadline_ms: the server drops the request when it could not start by then.

        Returns:
            Actions (action_horizon, action_dim) in physical units, (N, action_horizon, action_dim) with `batch` N.
            Its timing has the server's numbers and `round_trip_ms`, measured here.

        Raises:
            ServerUnavailable: the connection was lost, or no reply came within `reply_timeout`.
            ProtocolViolation: the reply belongs to no request, has the wrong shape or is not finite.
            ChunkwireError: the error that the server answered with, such as `InvalidObservation` or `Overloaded`.
        """
        request = self._exchange.ask(observation, noise_seed, episode, batch, deadline_ms)
        message = pack(request.to_wire())
        started = time.perf_counter()
        frame = self._round_trip(message)
        elapsed_ms = 1000 * (time.perf_counter() - started)
        chunk = self._settle(request, frame)
        return replace(chunk, timing={**chunk.timing, "round_trip_ms": elapsed_ms})

    def close(self) -> None:
        """Close the connection; doing it twice is fine."""
        self._stack.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _round_trip(self, message: bytes) -> bytes | str:
        """Send and wait. After any failure the connection is closed: its next frame could be a stale answer."""
        try:
            self._connection.send(message)
            return self._connection.recv(timeout=self._reply_timeout)
        except TimeoutError as error:
            self.close()
            raise ServerUnavailable(
                f"The policy server at {self.url} did not answer within {self._reply_timeout:g} s. "
                "See its log; raise --reply-timeout if the policy is that slow."
            ) from error
        except (ConnectionClosed, OSError) as error:
            self.close()
            raise ServerUnavailable(
                f"The connection to the policy server at {self.url} was lost: {error}. "
                "See the server's log, or start it again with `serve --checkpoint DIR`."
            ) from error
        except BaseException:
            self.close()
            raise

    def _settle(self, request: InferRequest, frame: bytes | str) -> ActionChunk:
        if isinstance(frame, str):  # it names no request, so the reply to this one may still be on its way
            self.close()
            raise RemoteError(f"The policy server at {self.url} answered: {frame}")
        try:
            return self._exchange.settle(request, InferReply.from_wire(unpack(frame).value))
        except (ProtocolViolation, CodecError):
            self.close()
            raise
