"""A connection to a policy server over WebSocket."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from policy_protocol import InferReply, InferRequest, pack, unpack
from policy_protocol.errors import CodecError, ProtocolViolation, RemoteError, ServerUnavailable
from policy_protocol.steps import StepsReply, StepsRequest
from sim_client.wire.credentials import Credentials
from sim_client.wire.link import (
    COMPILING,
    HINT,
    Greeting,
    LinkLost,
    NotYetError,
    Say,
    read_greeting,
    refused_key,
    reply_too_large,
    too_large,
    untrusted,
)

__all__ = ["WebSocketLink"]

_CLOSE_TIMEOUT_S = 2.0
_HANDSHAKE_TIMEOUT_S = 10.0
_MAX_REPLY_BYTES = 64 * 2**20
"""A batch of 1024 chunks of 50 x 32 float64 actions is 13 MB."""
_SILENCE_S = 2.0
"""A ready server greets within milliseconds."""
_NOT_READY = (502, 503, 504)
_MALFORMED, _TOO_LARGE = 1007, 1009


class WebSocketLink:
    """A greeted connection.

    Args:
        url: as `server_url` writes it.
        timeout_s: for the handshake and the greeting, which a server that still compiles sends when it is ready.
        say: told when the greeting is late.

    Raises:
        NotYetError: worth another attempt.
        ChunkwireError: not worth one: a refused key, an untrusted certificate, no policy server.
    """

    def __init__(self, url: str, credentials: Credentials, timeout_s: float, say: Say) -> None:
        self.url = url
        deadline = time.monotonic() + timeout_s
        self._given_up: set[int] = set()
        self._stack = ExitStack()
        try:
            self._connection = self._stack.enter_context(_connect(url, credentials, timeout_s))
            frame = _first_frame(self._connection, deadline, say)
            self.greeting: Greeting = read_greeting(unpack(frame).value if isinstance(frame, bytes) else None, url)
        except Exception as error:
            self._stack.close()
            raise _explain(error, url) from error
        except BaseException:  # Ctrl-C
            self._stack.close()
            raise

    @property
    def open(self) -> bool:
        """See `Link`: a server hangs up after a frame that it does not take, and that is no fault of the next one."""
        return self._connection.protocol.state is State.OPEN

    def ask(self, request: InferRequest, timeout_s: float) -> InferReply:
        """See `Link`."""
        return InferReply.from_wire(self._exchange(request.id, request.to_wire(), timeout_s))

    def ask_steps(self, request: StepsRequest, timeout_s: float) -> StepsReply:
        """See `Link`."""
        reply = StepsReply.from_wire(self._exchange(request.id, request.to_wire(), timeout_s))
        if reply.id != request.id:
            self.close()
            raise ProtocolViolation(f"The policy server at {self.url} answered {reply.id} to request {request.id}.")
        if reply.spec is not None:
            self.greeting = self.greeting.at(reply.spec)
        return reply

    def close(self) -> None:
        """Hang up; doing it twice is fine."""
        self._stack.close()

    def _exchange(self, identifier: int, wire: dict[str, Any], timeout_s: float) -> Any:
        """Send an envelope; its reply, or one that nobody has given up."""
        message, deadline = pack(wire), time.monotonic() + timeout_s
        asked = False
        try:
            self._connection.send(message)
            asked = True
            return self._reply(identifier, deadline)
        except TimeoutError:
            self._given_up.add(identifier)
            raise
        except ConnectionClosed as error:
            raise _closed(self.url, error, asked) from error
        except OSError as error:
            raise LinkLost(self.url, error, asked=asked) from error

    def _reply(self, identifier: int, deadline: float) -> Any:
        while True:
            frame = self._connection.recv(timeout=max(0.0, deadline - time.monotonic()))
            if isinstance(frame, str):  # it names no request, so the reply to this one may still be on its way
                self.close()
                raise RemoteError(f"The policy server at {self.url} answered: {frame}")
            reply = _read(frame, self.url)
            answered = reply.get("id") if isinstance(reply, Mapping) else None
            if answered == identifier or not isinstance(answered, int) or answered not in self._given_up:
                return reply
            self._given_up.discard(answered)


def _connect(url: str, credentials: Credentials, timeout_s: float) -> ClientConnection:
    authorization = credentials.authorization
    return connect(
        url,
        ssl=credentials.websocket_context() if url.startswith("wss://") else None,
        compression=None,
        max_size=_MAX_REPLY_BYTES,
        open_timeout=min(timeout_s, _HANDSHAKE_TIMEOUT_S),
        ping_timeout=None,  # a server that compiles may not answer a ping for minutes
        close_timeout=_CLOSE_TIMEOUT_S,
        additional_headers={"Authorization": authorization} if authorization else None,
    )


def _first_frame(connection: ClientConnection, deadline: float, say: Say) -> bytes | str:
    try:
        return connection.recv(timeout=max(0.0, min(_SILENCE_S, deadline - time.monotonic())))
    except TimeoutError:
        say(COMPILING)
    try:
        return connection.recv(timeout=max(0.0, deadline - time.monotonic()))
    except TimeoutError as error:
        raise NotYetError(COMPILING) from error


def _read(frame: bytes, url: str) -> Any:
    try:
        return unpack(frame).value
    except CodecError as error:
        raise ProtocolViolation(f"A reply of the policy server at {url} cannot be read: {error.message}") from error


def _explain(error: Exception, url: str) -> Exception:
    """What a failed attempt means: worth another one, or not."""
    if isinstance(error, InvalidStatus):
        return _turned_away(error.response.status_code, url)
    if isinstance(error, ssl.SSLCertVerificationError):
        return untrusted(url, error.verify_message)
    if isinstance(error, ConnectionClosed):
        return NotYetError(f"it closed the connection: {error}")
    if isinstance(error, TimeoutError):
        return NotYetError("it does not answer")
    if isinstance(error, OSError):
        return NotYetError((error.strerror or str(error)).lower())
    if isinstance(error, InvalidHandshake):
        return NotYetError(f"it does not speak WebSocket: {error}")
    return error


def _turned_away(status: int, url: str) -> Exception:
    if status in _NOT_READY:
        return NotYetError(f"it is alive but not ready, HTTP {status}")
    if status in (401, 403):
        return refused_key(url, f"HTTP {status}")
    return ServerUnavailable(f"{url} answered HTTP {status}, so it is no policy server. {HINT}")


def _closed(url: str, error: ConnectionClosed, asked: bool) -> Exception:
    received = error.rcvd
    if error.sent is not None and error.sent.code == _TOO_LARGE and not error.rcvd_then_sent:
        return reply_too_large(url, error.sent.reason or "close code 1009")
    if received is not None and received.code == _TOO_LARGE:
        return too_large(url, received.reason or "close code 1009")
    if received is not None and received.code == _MALFORMED:
        return CodecError(f"The policy server at {url} could not read the request: {received.reason}")
    return LinkLost(url, error, asked=asked)
