"""Requests, replies and errors to and from their protobuf messages (policy.proto)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import ChunkwireError, CodecError, Overloaded, ProtocolViolation, error_from_wire
from policy_protocol.messages import PROTOCOL, ActionChunk, InferReply, InferRequest
from policy_protocol.protobuf_parts import parse
from policy_protocol.protobuf_values import (
    observation_from_proto,
    observation_to_proto,
    tensor_from_proto,
    tensor_to_proto,
)
from policy_protocol.spec import PolicySpec
from policy_protocol.steps import StepsReply, StepsRequest

__all__ = [
    "ERROR_METADATA",
    "PROCESS_METADATA",
    "error_from_proto",
    "error_to_proto",
    "parse_request",
    "reply_from_proto",
    "reply_to_proto",
    "request_from_proto",
    "request_to_proto",
    "spec_to_proto",
    "steps_reply_from_proto",
    "steps_reply_to_proto",
    "steps_request_from_proto",
    "steps_request_to_proto",
]

ERROR_METADATA = "chunkwire-error-bin"
"""Trailing metadata of a failed call: the serialized `Error`."""

PROCESS_METADATA = "chunkwire-process"
"""Initial metadata of an answer: names the server process."""

_LONGEST_MESSAGE, _LONGEST_FIELD = 2000, 200
"""Bytes; HTTP/2 allows 8 KB of metadata, and a client's own keys may be in them."""

_MOST_ROWS = 65_536
"""Of one request; a server takes fewer (`serve --max-batch`)."""


def request_to_proto(request: InferRequest) -> pb.InferRequest:
    """The message of a request. Raises `CodecError` for an observation that cannot be sent."""
    message = pb.InferRequest(
        id=request.id,
        observation=observation_to_proto(request.observation),
        batch=request.batch,
        deadline_ms=request.deadline_ms,
    )
    if isinstance(request.noise_seed, tuple):
        message.noise_seeds.extend(request.noise_seed)
    elif request.noise_seed is not None:
        message.noise_seed = request.noise_seed
    if isinstance(request.episode, tuple):
        message.episodes.extend(pb.EpisodeMoment(**asdict(moment)) for moment in request.episode)
    elif request.episode is not None:
        message.episode.CopyFrom(pb.EpisodeMoment(**asdict(request.episode)))
    return message


def parse_request(data: bytes) -> pb.InferRequest:
    """Read the bytes of a request. Raises `CodecError` when they are none, or have too many parts."""
    return parse(pb.InferRequest, data)


def request_from_proto(message: pb.InferRequest) -> InferRequest:
    """The request of a message, checked as an envelope is.

    Raises:
        CodecError: a field is missing, unknown or out of range; names it.
    """
    if unknown := sorted({field.field_number for field in UnknownFieldSet(message)}):
        raise CodecError(f"The request has unknown fields: {', '.join(map(str, unknown))}.")
    if not message.HasField("observation"):
        raise CodecError("The request has no observation.", field="observation")
    wire: dict[str, Any] = {"id": message.id, "observation": observation_from_proto(message.observation)}
    for name in ("noise_seed", "batch", "deadline_ms"):
        if message.HasField(name):
            wire[name] = getattr(message, name)
    if message.HasField("episode"):
        wire["episode"] = _moment(message.episode)
    _require_rows(message)
    for name, rows in (("noise_seed", list(message.noise_seeds)), ("episode", [*map(_moment, message.episodes)])):
        if rows and name in wire:
            raise CodecError(f"The request has both {name} and {name}s; one of them is for all rows.", field=name)
        if rows:
            wire[name] = rows
    return InferRequest.from_wire(wire)


def _require_rows(message: pb.InferRequest) -> None:
    """As many as the batch has, before a byte or two each become objects."""
    for name, rows in (("noise_seeds", len(message.noise_seeds)), ("episodes", len(message.episodes))):
        if rows and rows != message.batch:
            raise CodecError(f"The request has {rows} {name} for a batch of {message.batch}.", field=name)
        if rows > _MOST_ROWS:
            raise CodecError(f"The request has {rows} {name}, which is more than {_MOST_ROWS:,}.", field=name)


def _moment(message: pb.EpisodeMoment) -> dict[str, Any]:
    return {"env_id": message.env_id, "seed": message.seed, "step": message.step}


def reply_to_proto(reply: InferReply) -> pb.InferResponse:
    """The message of a reply."""
    if reply.chunk is None:
        assert reply.error is not None
        return pb.InferResponse(id=reply.id, error=error_to_proto(reply.error))
    chunk = reply.chunk
    return pb.InferResponse(
        id=reply.id,
        chunk=pb.ActionChunk(
            actions=tensor_to_proto(chunk.actions), timing=dict(chunk.timing), checkpoint=chunk.checkpoint
        ),
    )


def reply_from_proto(message: pb.InferResponse) -> InferReply:
    """The reply of a message. Raises `ProtocolViolation` when it holds neither actions nor an error."""
    kind = message.WhichOneof("result")
    if kind == "error":
        return InferReply(message.id, error=error_from_proto(message.error))
    if kind is None:
        raise ProtocolViolation("The server's reply holds neither actions nor an error.")
    chunk = message.chunk
    try:
        actions = tensor_from_proto(chunk.actions)
    except CodecError as error:
        raise ProtocolViolation(f"The server's actions cannot be read: {error.message}", field="actions") from error
    if actions.dtype.kind != "f":
        raise ProtocolViolation("The server's reply holds no floating-point `actions` array.", field="actions")
    return InferReply(message.id, ActionChunk(actions, dict(chunk.timing), chunk.checkpoint))


def error_to_proto(error: ChunkwireError) -> pb.Error:
    """The message of an error, short enough for a call's metadata."""
    field = None if error.field is None else _cut(error.field, _LONGEST_FIELD)
    pause = error.retry_after_ms if isinstance(error, Overloaded) else None
    return pb.Error(code=error.code, message=_cut(error.message, _LONGEST_MESSAGE), field=field, retry_after_ms=pause)


def _cut(text: str, longest: int) -> str:
    return text.encode(errors="replace")[:longest].decode(errors="ignore")


def error_from_proto(message: pb.Error) -> ChunkwireError:
    """The error of a message, as its own kind."""
    wire: dict[str, Any] = {"code": message.code, "message": message.message}
    for name in ("field", "retry_after_ms"):
        if message.HasField(name):
            wire[name] = getattr(message, name)
    return error_from_wire(wire)


def spec_to_proto(spec: PolicySpec, features: Iterable[str] = ()) -> pb.GetSpecResponse:
    """The answer to `GetSpec`."""
    return pb.GetSpecResponse(protocol=PROTOCOL, spec_json=spec.to_json(), features=features)


def steps_request_to_proto(request: StepsRequest) -> pb.StepsRequest:
    """The message of a question about steps; a call needs no id."""
    return pb.StepsRequest(load=request.load)


def steps_request_from_proto(data: bytes) -> StepsRequest:
    """The question of a message's bytes. Raises `CodecError` when they are none."""
    message = parse(pb.StepsRequest, data)
    if unknown := sorted({field.field_number for field in UnknownFieldSet(message)}):
        raise CodecError(f"The request has unknown fields: {', '.join(map(str, unknown))}.")
    load = {"load": message.load} if message.HasField("load") else {}
    return StepsRequest.from_wire({"id": 0, "steps": load})


def steps_reply_to_proto(reply: StepsReply) -> pb.StepsResponse:
    """The message of a reply that is no error."""
    assert reply.spec is not None, "an error ends the call"
    return pb.StepsResponse(steps=reply.steps, spec_json=reply.spec.to_json())


def steps_reply_from_proto(message: pb.StepsResponse) -> StepsReply:
    """The reply of a message. Raises `SpecInvalid`."""
    return StepsReply(0, tuple(sorted(message.steps)), PolicySpec.from_json(message.spec_json))
