"""Opening the connection to a policy server, patiently: it may still be starting, compiling or restarting."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from policy_protocol import PROTOCOL, PolicySpec, unpack
from policy_protocol.errors import ProtocolViolation, ServerUnavailable

__all__ = ["Greeting", "open_connection", "read_greeting"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_CLOSE_TIMEOUT_S = 2.0
_HANDSHAKE_TIMEOUT_S = 10.0
_MAX_REPLY_BYTES = 64 * 2**20
"""A batch of 1024 chunks of 50 x 32 float64 actions is 13 MB."""
_SILENCE_S = 2.0
"""A ready server greets within milliseconds."""
_COMPILING = "it accepts connections but is not ready: still loading or compiling"
_NOT_READY = (502, 503, 504)
_HINT = "Start one with `serve --checkpoint DIR`, or name its address with --server ws://HOST:PORT."


@dataclass(frozen=True)
class Greeting:
    """The server's first frame."""

    spec: PolicySpec
    metadata: dict[str, Any]
    """The whole frame, `protocol` and `policy_spec` included."""


class _Once:
    """Says why the client waits, the first time that it does."""

    def __init__(self, listener: Callable[[str], None] | None, sentence: str) -> None:
        self._listener, self._sentence = listener, sentence

    def __call__(self, reason: str) -> None:
        if self._listener is not None:
            self._listener(f"{self._sentence} ({reason}) …")
            self._listener = None


class _NotYetError(Exception):
    """This attempt failed in a way that a server that is starting would explain."""


def open_connection(
    url: str,
    *,
    timeout: float,
    api_key: str | None = None,
    tls: ssl.SSLContext | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> tuple[ExitStack, ClientConnection, bytes | str]:
    """Connect and receive the first frame, trying again with growing pauses for `timeout` seconds.

    Args:
        url: as `websocket_url` writes it.
        on_wait: called once with a sentence, when the server does not answer at once.

    Returns:
        What closes the connection, the connection, and the server's first frame.

    Raises:
        ServerUnavailable: nobody answered in time, or the server turned this client away.
    """
    deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE_S
    say = _Once(on_wait, f"Waiting up to {timeout:g} s for the policy server at {url}")
    while True:
        try:
            return _attempt(url, max(deadline - time.monotonic(), _FIRST_PAUSE_S), api_key, tls, say)
        except _NotYetError as reason:
            if deadline - time.monotonic() <= pause:
                raise _gave_up(url, timeout, reason) from reason.__cause__
            say(str(reason))
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def read_greeting(frame: bytes | str, url: str) -> Greeting:
    """Check the first frame.

    Raises:
        ProtocolViolation: it is not the greeting of a Chunkwire server.
        SpecInvalid: its spec is damaged; names the field.
    """
    metadata = unpack(frame).value if isinstance(frame, bytes) else None
    if not isinstance(metadata, dict) or "policy_spec" not in metadata:
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


def _attempt(
    url: str, timeout: float, api_key: str | None, tls: ssl.SSLContext | None, say: _Once
) -> tuple[ExitStack, ClientConnection, bytes | str]:
    deadline = time.monotonic() + timeout
    stack = ExitStack()
    try:
        connection = stack.enter_context(
            connect(
                url,
                ssl=tls,
                compression=None,
                max_size=_MAX_REPLY_BYTES,
                open_timeout=min(timeout, _HANDSHAKE_TIMEOUT_S),
                ping_timeout=None,  # a server that compiles may not answer a ping for minutes
                close_timeout=_CLOSE_TIMEOUT_S,
                additional_headers={"Authorization": f"Api-Key {api_key}"} if api_key else None,
            )
        )
        return stack, connection, _first_frame(connection, deadline, say)
    except Exception as error:
        stack.close()
        raise _explain(error, url) from error
    except BaseException:  # Ctrl-C
        stack.close()
        raise


def _first_frame(connection: ClientConnection, deadline: float, say: _Once) -> bytes | str:
    """The greeting, which a server that still compiles sends only when it is ready."""
    try:
        return connection.recv(timeout=max(0.0, min(_SILENCE_S, deadline - time.monotonic())))
    except TimeoutError:
        say(_COMPILING)
    try:
        return connection.recv(timeout=max(0.0, deadline - time.monotonic()))
    except TimeoutError as error:
        raise _NotYetError(_COMPILING) from error


def _explain(error: Exception, url: str) -> Exception:
    """What a failed attempt means: worth another one, or not."""
    if isinstance(error, InvalidStatus):
        return _turned_away(error.response.status_code, url)
    if isinstance(error, ssl.SSLCertVerificationError):
        return ServerUnavailable(
            f"The TLS certificate of {url} is not trusted: {error.verify_message}. "
            "Set the environment variable SSL_CERT_FILE to the certificate of its authority."
        )
    if isinstance(error, ConnectionClosed):
        return _NotYetError(f"it closed the connection: {error}")
    if isinstance(error, TimeoutError):
        return _NotYetError("it does not answer")
    if isinstance(error, OSError):
        return _NotYetError((error.strerror or str(error)).lower())
    if isinstance(error, InvalidHandshake):
        return _NotYetError(f"it does not speak WebSocket: {error}")
    return error


def _turned_away(status: int, url: str) -> Exception:
    if status in _NOT_READY:
        return _NotYetError(f"it is alive but not ready, HTTP {status}")
    if status in (401, 403):
        return ServerUnavailable(
            f"The policy server at {url} refused the API key (HTTP {status}). "
            "Pass --api-key-file with a file that holds one of its keys."
        )
    return ServerUnavailable(f"{url} answered HTTP {status}, so it is no policy server. {_HINT}")


def _gave_up(url: str, timeout: float, reason: Exception) -> ServerUnavailable:
    return ServerUnavailable(
        f"No policy server answers at {url} (tried for {timeout:g} s; {reason}). {_HINT} "
        "If it needs longer to start, raise --connect-timeout."
    )
