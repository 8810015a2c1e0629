"""`PolicyClient`: ask policy servers for action chunks, over WebSocket or gRPC."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from policy_protocol import ActionChunk, EpisodeMoment, InferRequest, Observation, PolicySpec
from policy_protocol.errors import Draining, Overloaded, ProtocolViolation, ServerUnavailable
from policy_protocol.spec import CheckpointId
from policy_protocol.steps import StepsReply
from sim_client.option_checks import require_seconds
from sim_client.wire.credentials import Credentials
from sim_client.wire.exchange import Exchange
from sim_client.wire.jpeg import require_quality, with_jpeg
from sim_client.wire.link import Link, LinkLost
from sim_client.wire.patience import Patience
from sim_client.wire.server_address import server_urls
from sim_client.wire.servers import Servers
from sim_client.wire.steps import ask_steps, require_step

__all__ = ["Policy", "PolicyClient"]


class Policy(Protocol):
    """Whatever answers observations with action chunks."""

    spec: PolicySpec

    @property
    def redials(self) -> int:
        """How often a lost connection was made anew."""

    def infer(
        self,
        observation: Observation,
        *,
        noise_seed: int | tuple[int, ...] | None = None,
        episode: EpisodeMoment | tuple[EpisodeMoment, ...] | None = None,
        batch: int | None = None,
        deadline_ms: float | None = None,
    ) -> ActionChunk:
        """One action chunk for one observation, or N for `batch` N."""

    def close(self) -> None:
        """Hang up."""


class PolicyClient:
    """A connection to a policy server, or to several of the same policy. One question at a time; one client a thread.

    ```python
    with PolicyClient("ws://127.0.0.1:8000") as policy:
        chunk = policy.infer({"observation/image": image, "observation/state": state, "prompt": "Pull a cube."})
        robot.execute(chunk.actions[: policy.spec.policy.execution_horizon])
    ```

    With several servers each question goes to the next one; one that does not answer is left out until it does. A lost
    connection is dialled again, and a full server is asked again when it said.

    Args:
        servers: `ws://host:port`, `wss://…`, `grpc://host:port`, `grpcs://…` or `host:port` (a WebSocket's); several
            with commas between them or as a list.
        connect_timeout: seconds for which servers that do not answer, or are still compiling, are tried again.
        reply_timeout: seconds after which a silent server counts as lost.
        api_key: sent as `Authorization: Api-Key …`.
        tls_ca: PEM file of the certificates to trust for `wss` and `grpcs`; the system's by default.
        allow_newer_checkpoint: go on when `serve --follow` loads another step of its run; each chunk names its own.
        jpeg_quality: 1 to 100 sends every image as a JPEG of this quality instead of its pixels; the policy then sees
            slightly other images, so name it beside a result. Images must be of the spec's size.
        on_wait: called with a sentence when the client has to wait, or goes on without a server.

    Raises:
        InvalidOption: an address is none, a timeout is not above 0, `tls_ca` holds no certificate, or `jpeg_quality` is
            none.
        ServerUnavailable: no server answered in time.
        Unauthenticated: a server refused the key.
        SpecMismatch: two servers serve different policies, or one takes no JPEG where that is asked.
        ProtocolViolation, SpecInvalid: one is no Chunkwire server, or its spec is damaged.

    Attributes:
        url: the full address; several with commas.
        spec: what the policy demands.
        metadata: what the server said of itself on connecting.
        jpeg_quality: as given; None sends pixels.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        connect_timeout: float = 30.0,
        reply_timeout: float = 300.0,
        api_key: str | None = None,
        tls_ca: Path | None = None,
        on_wait: Callable[[str], None] | None = None,
        allow_newer_checkpoint: bool = False,
        jpeg_quality: int | None = None,
    ) -> None:
        urls = server_urls(servers)
        self.url = ",".join(urls)
        require_seconds("--connect-timeout", connect_timeout)
        require_seconds("--reply-timeout", reply_timeout)
        require_quality(jpeg_quality)
        self.jpeg_quality = jpeg_quality
        self._connect_timeout, self._reply_timeout = connect_timeout, reply_timeout
        self._servers = Servers(
            urls,
            Credentials(api_key, tls_ca),
            connect_timeout,
            on_wait,
            any_step=allow_newer_checkpoint,
            jpeg=jpeg_quality is not None,
        )
        self.spec: PolicySpec = self._servers.greeting.spec
        self.metadata: Mapping[str, Any] = self._servers.greeting.metadata
        self._exchange = Exchange(self.spec, allow_newer_checkpoint)

    def infer(
        self,
        observation: Observation,
        *,
        noise_seed: int | tuple[int, ...] | None = None,
        episode: EpisodeMoment | tuple[EpisodeMoment, ...] | None = None,
        batch: int | None = None,
        deadline_ms: float | None = None,
    ) -> ActionChunk:
        """Ask for the actions to take from here.

        Args:
            observation: wire key -> image (height, width, 3) uint8, state (state_dim,) float32, prompt. With `batch`
                N every array has a leading N.
            noise_seed: fixes the flow's noise; the server draws one otherwise. Only a request with a seed is sent again
                when the connection broke after it was sent: its answer is the same. With `batch` N a tuple of N gives
                each row the actions that it would get alone with its seed.
            episode: which moment this is, for the server's log; the model never sees it. A tuple of N with `batch` N.
            deadline_ms: milliseconds after which the answer is of no use, everything that is tried meanwhile included.

        Returns:
            Actions (action_horizon, action_dim) in physical units, (N, action_horizon, action_dim) with `batch` N.
            Its timing has the server's numbers and `round_trip_ms`: all that the caller waited, measured here.

        Raises:
            DeadlineExceeded: there was no answer by the deadline.
            ServerUnavailable: the connection was lost and not made again, or no reply came within `reply_timeout`.
            SpecMismatch: the server came back with another policy, or has loaded another checkpoint; or several servers
                serve different steps.
            ProtocolViolation: the reply belongs to no request, has the wrong shape or is not finite.
            ChunkwireError: the error that the server answered with, such as `InvalidObservation` or `Overloaded`.
        """
        began = time.perf_counter()
        patience = Patience(deadline_ms, noise_seed is not None, self._connect_timeout, self._reply_timeout)
        if self.jpeg_quality is not None:
            observation = with_jpeg(observation, self.spec, self.jpeg_quality, batch is not None)
        full: list[Overloaded] = []
        while True:
            link = self._next_link(patience)
            left_s = patience.left_s()
            left_ms = None if left_s is None else math.ceil(1e3 * left_s)
            request = self._exchange.ask(observation, noise_seed, episode, batch, left_ms)
            try:
                return _timed(self._ask(link, request, patience), began)
            except Overloaded as error:
                full.append(error)
                if len(full) >= self._servers.live:  # each was asked, for they take turns
                    patience.wait_for_room(full)
                    full.clear()
            except (LinkLost, Draining) as error:
                self._servers.lost(link, "it is shutting down" if isinstance(error, Draining) else "connection lost")
                patience.turned_away(error)

    @property
    def redials(self) -> int:
        """How often a lost connection was made anew: each time, what answers may be another process."""
        return self._servers.redials

    def steps(self) -> tuple[int, ...]:
        """Steps of the run, ascending, that every server can load now.

        Raises:
            StepNotServed: a server was not started with `serve --follow RUN --follow-on-request`.
            ServerUnavailable: one of the servers does not answer.
        """
        _, replies = self._ask_steps(None)
        return tuple(sorted(frozenset.intersection(*(frozenset(reply.steps) for reply in replies))))

    def load_step(self, step: int) -> CheckpointId:
        """Have every server serve another step of its run, older or newer; returns when all have loaded it.

        From then on `spec` names it and its actions are accepted. Other clients of these servers are answered from it,
        too. When it fails on one server, others may serve the step already: load one again before asking for actions.

        Raises:
            StepNotServed: there is no such step (the message lists those that there are), it cannot be used, or a
                server was not started with `serve --follow RUN --follow-on-request`.
            SpecMismatch: the step expects or gives something else than the one before.
            ServerUnavailable: one of the servers does not answer, or loads for longer than `reply_timeout`.
        """
        links, replies = self._ask_steps(step)
        for link, reply in zip(links, replies, strict=True):
            require_step(link.url, self.spec, reply, step)
        greeting = self._servers.moved()
        self.spec, self.metadata = greeting.spec, greeting.metadata
        self._exchange.expect(self.spec)
        return self.spec.policy.checkpoint

    def close(self) -> None:
        """Close the connections; doing it twice is fine."""
        self._servers.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask_steps(self, load: int | None) -> tuple[Sequence[Link], Sequence[StepsReply]]:
        """Twice where a connection is found dead: it may have been idle for long, and loading twice is loading once."""
        for last in (False, True):
            links = self._servers.every_link()
            try:
                return links, ask_steps(links, lambda: self._exchange.ask_steps(load), self._reply_timeout)
            except LinkLost as error:
                for link in links:
                    if link.url == error.url:
                        self._servers.lost(link, "connection lost")
                if last:
                    raise
        raise AssertionError("the second time returns or raises")

    def _next_link(self, patience: Patience) -> Link:
        try:
            return self._servers.next_link(patience.left_s())
        except ServerUnavailable:
            patience.left_s()  # a deadline that has passed is the better reason
            raise

    def _ask(self, link: Link, request: InferRequest, patience: Patience) -> ActionChunk:
        left_s = patience.left_s()
        timeout_s = self._reply_timeout if left_s is None else min(self._reply_timeout, left_s)
        try:
            return self._exchange.settle(request, link.ask(request, timeout_s), link.url)
        except TimeoutError as error:
            if timeout_s == left_s:  # a timer may fire a little before the clock says so
                raise patience.too_late() from error
            self._servers.lost(link, "it did not answer")
            raise ServerUnavailable(
                f"The policy server at {link.url} did not answer within {self._reply_timeout:g} s. "
                "See its log; raise --reply-timeout if the policy is that slow."
            ) from error
        except (ProtocolViolation, KeyboardInterrupt):  # its next reply could be a stale one
            self._servers.lost(link, "it broke the protocol")
            raise


def _timed(chunk: ActionChunk, began: float) -> ActionChunk:
    """With the milliseconds since `began`: waiting for room, for a new connection and for a JPEG included."""
    return replace(chunk, timing={**chunk.timing, "round_trip_ms": 1000 * (time.perf_counter() - began)})
