"""Asking a server that follows a training run which steps there are, and to serve another one.

The envelope `{"id", "steps": {"load"?}}` is told apart by its `steps`. The reply is `{"id", "steps", "policy_spec"}` or
`{"id", "error"}`; the spec is that of the step that is served from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policy_protocol.errors import ChunkwireError, CodecError, ProtocolViolation, error_from_wire
from policy_protocol.messages import require_whole
from policy_protocol.spec import PolicySpec

__all__ = ["STEPS_FEATURE", "StepsReply", "StepsRequest", "is_steps_request"]

STEPS_FEATURE = "steps"
"""Name in a greeting's `features` of a server that loads steps on request."""


@dataclass(frozen=True)
class StepsRequest:
    """Which complete steps the run has; with `load`, serve that one."""

    id: int
    load: int | None = None

    def to_wire(self) -> dict[str, Any]:
        """The envelope map."""
        return {"id": self.id, "steps": {} if self.load is None else {"load": self.load}}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> StepsRequest:
        """Validate an envelope. Raises `CodecError` naming the field."""
        asked = wire["steps"]
        if not isinstance(asked, Mapping):
            raise CodecError("steps must be a map: empty, or with `load`.", field="steps")
        if unknown := sorted(map(str, {*(set(wire) - {"id", "steps"}), *(set(asked) - {"load"})})):
            raise CodecError(f"The request has unknown fields: {', '.join(unknown)}.")
        load = asked.get("load")
        identifier = require_whole(wire["id"], "id", 0)
        return cls(identifier, None if load is None else require_whole(load, "steps.load", 0))


@dataclass(frozen=True)
class StepsReply:
    """The answer to the request of the same id: the steps and the spec, or an error."""

    id: int
    steps: tuple[int, ...] = ()
    """Numbers of the complete steps, ascending."""
    spec: PolicySpec | None = None
    """Of the step that is served; None with an error."""
    error: ChunkwireError | None = None

    def to_wire(self) -> dict[str, Any]:
        """The reply map."""
        if self.spec is None:
            assert self.error is not None
            return {"id": self.id, "error": self.error.to_wire()}
        return {"id": self.id, "steps": list(self.steps), "policy_spec": self.spec.to_wire()}

    @classmethod
    def from_wire(cls, wire: object) -> StepsReply:
        """Validate a reply. Raises `ProtocolViolation` or `SpecInvalid` when it is not one."""
        if not isinstance(wire, Mapping) or not isinstance(wire.get("id"), int):
            raise ProtocolViolation("The server's reply carries no id. Is this a Chunkwire server?")
        if "error" in wire:
            return cls(wire["id"], error=error_from_wire(wire["error"]))
        steps = wire.get("steps")
        if not isinstance(steps, list) or not all(isinstance(step, int) for step in steps):
            raise ProtocolViolation("The server's reply holds no list of steps.", field="steps")
        return cls(wire["id"], tuple(sorted(steps)), PolicySpec.from_wire(wire.get("policy_spec")))


def is_steps_request(message: Mapping[Any, Any]) -> bool:
    """Whether a request asks about steps rather than for actions."""
    return "id" in message and "steps" in message and "observation" not in message
