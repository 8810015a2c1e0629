"""From the bytes of a gRPC request to a question for the service."""

from __future__ import annotations

from dataclasses import replace

from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import ChunkwireError, Draining, ServerUnavailable
from policy_protocol.messages import InferRequest
from policy_protocol.protobuf_messages import parse_request, request_from_proto, steps_request_from_proto
from policy_protocol.steps import StepsRequest
from policy_server.observation_limits import Container, require_modest
from policy_server.service import PolicyService
from policy_server.session import Question, Session

__all__ = ["TRANSPORT", "check_ready", "read_question", "read_steps"]

TRANSPORT = "grpc"
"""Its name in metrics and logs."""


def check_ready(service: PolicyService) -> None:
    """A call has a deadline, so it is not left waiting.

    Raises:
        ServerUnavailable: not every shape is compiled.
        Draining: the server is ending.
    """
    if service.draining:
        raise Draining("The server is shutting down and takes no new requests.")
    if not service.ready:
        raise ServerUnavailable("The server is still compiling. Ask again, or wait until grpc.health.v1 says SERVING.")


def read_question(service: PolicyService, session: Session, data: bytes, remaining_s: float | None = None) -> Question:
    """Read one request.

    Args:
        remaining_s: until the call's own deadline; the earlier of the two counts.

    Raises:
        CodecError: the bytes are no request, or a field is wrong.
        InvalidObservation: its batch does not fit, or it has more entries than any robot.
        ServerUnavailable: the server still compiles.
    """
    message = parse_request(data)
    try:
        if not service.draining:  # what arrived before that is answered
            check_ready(service)
        rows = session.rows(message.batch if message.HasField("batch") else None)
        require_modest(message.observation.entries, rows, _inside)  # before it becomes objects of Python's
        return session.admit(_with_deadline(request_from_proto(message), remaining_s))
    except ChunkwireError as error:
        error.request_id = message.id
        raise


def _inside(value: pb.Value) -> Container | None:
    kind = value.WhichOneof("kind")
    if kind == "nested":
        return value.nested.entries
    return value.list.values if kind == "list" else None


def read_steps(service: PolicyService, data: bytes) -> StepsRequest:
    """Read one question about steps. Raises as `read_question` does."""
    if not service.draining:
        check_ready(service)
    return steps_request_from_proto(data)


def _with_deadline(request: InferRequest, remaining_s: float | None) -> InferRequest:
    if remaining_s is None:
        return request
    deadlines = (deadline for deadline in (request.deadline_ms, remaining_s * 1e3) if deadline is not None)
    return replace(request, deadline_ms=min(deadlines))
