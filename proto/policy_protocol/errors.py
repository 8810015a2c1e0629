"""One error tree for the whole project, each error with a stable code.

The code is what travels on the wire and what a program may test; the message is for a person and says what
happened, what was expected and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ChunkwireError",
    "CodecError",
    "DeadlineExceeded",
    "Draining",
    "InternalError",
    "InvalidObservation",
    "Overloaded",
    "ProtocolViolation",
    "RemoteError",
    "ServerUnavailable",
    "SpecInvalid",
    "SpecMismatch",
    "StepNotServed",
    "Unauthenticated",
    "did_you_mean",
    "error_from_wire",
]


class ChunkwireError(Exception):
    """Base of every error that a user of Chunkwire can see.

    Attributes:
        code: stable identifier, the same on WebSocket, gRPC and in records.
        field: path of the offending field (`observation/state`), or None.
        request_id: id of the envelope that it answers, where one could be read; set by who reads requests.
        exit_code: status with which a command line ends on this error.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.request_id: int | None = None

    def to_wire(self) -> dict[str, str | int]:
        """The map `{"code", "message", "field"?}` that an envelope reply carries."""
        wire: dict[str, str | int] = {"code": self.code, "message": self.message}
        return wire if self.field is None else {**wire, "field": self.field}


class CodecError(ChunkwireError):
    """Bytes that are not a safe, well-formed message."""

    code = "malformed"


class InvalidObservation(ChunkwireError):
    """An observation that the policy cannot take: a key, dtype, shape or value is wrong."""

    code = "invalid_argument"


class Overloaded(ChunkwireError):
    """The server's queue is full; ask again later.

    Attributes:
        retry_after_ms: when there may be room again, in the server's estimate; None when it has none.
    """

    code = "overloaded"

    def __init__(self, message: str, *, field: str | None = None, retry_after_ms: int | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after_ms = retry_after_ms

    def to_wire(self) -> dict[str, str | int]:
        """As every error's, with `retry_after_ms` when it is known."""
        wire = super().to_wire()
        return wire if self.retry_after_ms is None else {**wire, "retry_after_ms": self.retry_after_ms}


class DeadlineExceeded(ChunkwireError):
    """The request's deadline passed before its actions were computed."""

    code = "deadline_exceeded"


class Draining(ChunkwireError):
    """The server is shutting down and takes no new requests."""

    code = "draining"


class StepNotServed(ChunkwireError):
    """The server cannot serve the step of its run that it was asked to load; it serves the one that it had."""

    code = "step_not_served"


class Unauthenticated(ChunkwireError):
    """The server asks for an API key, and none or a wrong one was sent."""

    code = "unauthenticated"


class InternalError(ChunkwireError):
    """The server failed; its log has the traceback."""

    code = "internal"


class ServerUnavailable(ChunkwireError):
    """No server answers at the address, or the connection was lost."""

    code = "unavailable"


class ProtocolViolation(ChunkwireError):
    """The other side broke the contract: an unknown reply id, a wrong shape, NaN in the actions."""

    code = "protocol_violation"


class RemoteError(ChunkwireError):
    """An error reported by the server under a code that this version does not know."""

    code = "remote"


class SpecInvalid(ChunkwireError):
    """A `policy_spec.json` that is not a policy spec."""

    code = "spec_invalid"


class SpecMismatch(ChunkwireError):
    """The simulator cannot be set up as the policy's spec demands."""

    code = "spec_mismatch"


_BY_CODE: dict[str, type[ChunkwireError]] = {
    error.code: error
    for error in (
        CodecError,
        InvalidObservation,
        Overloaded,
        DeadlineExceeded,
        Draining,
        StepNotServed,
        Unauthenticated,
        InternalError,
        ServerUnavailable,
        ProtocolViolation,
    )
}


def error_from_wire(wire: object) -> ChunkwireError:
    """The error that `to_wire` wrote; an unknown code or shape becomes a `RemoteError` that keeps the text."""
    if not isinstance(wire, dict):
        return RemoteError(f"The server answered with an error of an unknown form: {wire!r}.")
    code, message = str(wire.get("code", "")), str(wire.get("message", ""))
    field = None if wire.get("field") is None else str(wire["field"])
    error = _BY_CODE.get(code)
    if error is None:
        return RemoteError(f"{message} (code {code!r})", field=field)
    if error is Overloaded:
        pause = wire.get("retry_after_ms")
        return Overloaded(message, field=field, retry_after_ms=pause if isinstance(pause, int) else None)
    return error(message, field=field)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of an error about an unknown name: the closest choice if there is one, else the list of choices.

    Returns a sentence that starts with a space, ready to be appended to "Unknown environment 'StackCub-v1'.".
    """
    names = sorted(choices)
    folded = {choice.lower(): choice for choice in names}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {folded[close[0]]!r}?"
    if len(names) > 20:
        return f" There are {len(names)} names to choose from, none of them close."
    return f" Choose one of: {', '.join(names)}."
