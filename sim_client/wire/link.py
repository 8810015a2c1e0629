"""One live connection to one policy server, whichever transport it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from policy_protocol import PROTOCOL, InferReply, InferRequest, PolicySpec
from policy_protocol.errors import InvalidObservation, ProtocolViolation, ServerUnavailable, Unauthenticated
from policy_protocol.steps import StepsReply, StepsRequest

__all__ = [
    "COMPILING",
    "HINT",
    "Backoff",
    "Greeting",
    "Link",
    "LinkLost",
    "NotYetError",
    "read_greeting",
    "refused_key",
    "reply_too_large",
    "too_large",
    "untrusted",
]

COMPILING = "it accepts connections but is not ready: still loading or compiling"
HINT = "Start one with `serve --checkpoint DIR`, or name its address with --server ws://HOST:PORT."


@dataclass(frozen=True)
class Greeting:
    """What a server says of itself on connecting."""

    spec: PolicySpec
    metadata: Mapping[str, Any]
    """The whole of it, `protocol` and `policy_spec` included."""

    @property
    def features(self) -> frozenset[str]:
        """What the server does beside answering, such as `steps`; none for servers that do not say."""
        named = self.metadata.get("features")
        return frozenset(map(str, named)) if isinstance(named, list | tuple) else frozenset()

    def at(self, spec: PolicySpec) -> Greeting:
        """The same server once it serves another step."""
        return Greeting(spec, {**self.metadata, "policy_spec": spec.to_wire()})


class Link(Protocol):
    """A live connection. One question at a time."""

    url: str
    greeting: Greeting

    @property
    def open(self) -> bool:
        """Whether another question may go out on it, as far as is known without one."""

    def ask(self, request: InferRequest, timeout_s: float) -> InferReply:
        """Send a request and wait for its reply; a reply that was given up earlier is passed over.

        Raises:
            TimeoutError: no reply came in time; another question may follow.
            LinkLost: the connection is gone.
            CodecError: the request cannot be sent, or the reply not be read.
        """

    def ask_steps(self, request: StepsRequest, timeout_s: float) -> StepsReply:
        """Send a question about steps and wait for its reply. Once it has loaded one, the greeting names that.

        Raises:
            TimeoutError, LinkLost: as for `ask`.
        """

    def close(self) -> None:
        """Hang up; doing it twice is fine."""


class LinkLost(ServerUnavailable):
    """The connection broke.

    Attributes:
        url: of the server.
        asked: whether the server may have taken the request.
    """

    def __init__(self, url: str, reason: object, *, asked: bool) -> None:
        super().__init__(
            f"The connection to the policy server at {url} was lost: {reason}. "
            "See the server's log, or start it again with `serve --checkpoint DIR`."
        )
        self.url, self.asked = url, asked


class NotYetError(Exception):
    """An attempt to connect failed in a way that a server that is starting would explain."""


class Backoff:
    """Pauses that double, each a little longer or shorter so that clients do not come back all at once."""

    def __init__(self, first_s: float = 0.1, longest_s: float = 2.0) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._pause_s = first_s

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        pause, self._pause_s = self._pause_s, min(2 * self._pause_s, self._longest_s)
        return pause * random.uniform(0.75, 1.25)

    def reset(self) -> None:
        """An attempt succeeded."""
        self._pause_s = self._first_s


Say = Callable[[str], None]
"""Told why the client waits."""


def read_greeting(metadata: object, url: str) -> Greeting:
    """Check what a server says of itself.

    Raises:
        ProtocolViolation: it is no Chunkwire server, or one of another version.
        SpecInvalid: its spec is damaged; names the field.
    """
    if not isinstance(metadata, Mapping) or "policy_spec" not in metadata:
        raise ProtocolViolation(
            f"The server at {url} sent no policy spec on connecting, so the simulator cannot be set up from it. "
            "openpi's own server does not send one: run the checkpoint with `serve --checkpoint DIR`."
        )
    if metadata.get("protocol") != PROTOCOL:
        raise ProtocolViolation(
            f"The server at {url} speaks {metadata.get('protocol')!r}, this client {PROTOCOL!r}. "
            "Install the same version of chunkwire on both sides."
        )
    return Greeting(PolicySpec.from_wire(metadata["policy_spec"]), metadata)


def refused_key(url: str, said: object) -> Unauthenticated:
    """The server wants a key, or another one."""
    return Unauthenticated(
        f"The policy server at {url} refused the API key ({said}). "
        "Pass --api-key-file with a file that holds one of its keys."
    )


def untrusted(url: str, reason: object) -> ServerUnavailable:
    """The server's certificate is not to be trusted."""
    return ServerUnavailable(
        f"The TLS certificate of {url} is not trusted: {reason}. Pass --tls-ca with the certificate of its authority."
    )


def too_large(url: str, said: object) -> InvalidObservation:
    """The request is beyond the server's limit."""
    return InvalidObservation(
        f"The request is larger than the policy server at {url} takes ({said}). "
        "Send a smaller batch or smaller images, or raise the server's --max-message-bytes."
    )


def reply_too_large(url: str, said: object) -> ProtocolViolation:
    """The reply is beyond this client's limit."""
    return ProtocolViolation(
        f"The reply of the policy server at {url} is larger than this client takes ({said}). Ask for a smaller batch."
    )
