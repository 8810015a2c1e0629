"""The messages of the wire: observation, request, reply. Plain data; no I/O.

A bare observation map is openpi's request. The envelope `{"id", "observation", …}` is ours and is told apart by its
`id` and `observation` keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float

from policy_protocol.errors import ChunkwireError, CodecError, ProtocolViolation, error_from_wire

__all__ = [
    "PROTOCOL",
    "ActionChunk",
    "EpisodeMoment",
    "InferReply",
    "InferRequest",
    "Observation",
    "is_envelope",
    "require_whole",
]

PROTOCOL = "chunkwire/1"
"""Name and version of the envelope protocol, sent in the first frame."""

T = TypeVar("T")

Observation: TypeAlias = Mapping[str, Any]
"""Wire key -> value: images (height, width, 3) uint8, state (state_dim,) float, prompt str; spec.py names the keys."""


@dataclass(frozen=True)
class EpisodeMoment:
    """Which moment of which episode a request belongs to: for logs and the replay policy; a model never sees it."""

    env_id: str
    seed: int
    step: int


@dataclass(frozen=True)
class InferRequest:
    """One question to the policy.

    `noise_seed` fixes the flow's noise. With `batch` N every array of the observation has a leading N. Its rows get
    seeds made from one `noise_seed`, or those of a tuple of N as they are: a row then gets the actions that it would
    get alone. A tuple of N moments likewise says which episode each row belongs to.
    """

    id: int
    observation: Observation
    noise_seed: int | tuple[int, ...] | None = None
    batch: int | None = None
    deadline_ms: float | None = None
    episode: EpisodeMoment | tuple[EpisodeMoment, ...] | None = None

    def to_wire(self) -> dict[str, Any]:
        """The envelope map; fields that are None stay out."""
        wire: dict[str, Any] = {"id": self.id, "observation": dict(self.observation)}
        for name in ("noise_seed", "batch", "deadline_ms"):
            if (value := getattr(self, name)) is not None:
                wire[name] = list(value) if isinstance(value, tuple) else value
        if isinstance(self.episode, tuple):
            wire["episode"] = [asdict(moment) for moment in self.episode]
        elif self.episode is not None:
            wire["episode"] = asdict(self.episode)
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> InferRequest:
        """Validate an envelope. Raises `CodecError` naming the field."""
        unknown = set(wire) - {"id", "observation", "noise_seed", "batch", "deadline_ms", "episode"}
        if unknown:
            raise CodecError(f"The request has unknown fields: {', '.join(sorted(map(str, unknown)))}.")
        observation = wire["observation"]
        if not isinstance(observation, Mapping):
            raise CodecError("The request's observation must be a map.", field="observation")
        deadline = wire.get("deadline_ms")
        if deadline is not None and not (_is_number(deadline) and deadline > 0):
            raise CodecError("deadline_ms must be a positive number of milliseconds.", field="deadline_ms")
        batch = require_whole(wire["batch"], "batch", 1) if wire.get("batch") is not None else None
        return cls(
            id=require_whole(wire["id"], "id", 0),
            observation=observation,
            noise_seed=_one_or_rows(wire, "noise_seed", batch, lambda value: require_whole(value, "noise_seed", 0)),
            batch=batch,
            deadline_ms=None if deadline is None else float(deadline),
            episode=_one_or_rows(wire, "episode", batch, _moment),
        )


@dataclass(frozen=True)
class ActionChunk:
    """Actions in physical units and how long they took.

    `timing` holds milliseconds: `infer_ms` (device time, measured to the finished result), `queue_ms`, `total_ms`.
    """

    actions: Float[np.ndarray, "*batch action_horizon action_dim"]
    timing: Mapping[str, float] = field(default_factory=dict)
    checkpoint: str = ""
    """`experiment/run/step` that computed it; a server that follows a training run changes it between requests."""


@dataclass(frozen=True)
class InferReply:
    """The answer to the request of the same id: either a chunk or an error."""

    id: int
    chunk: ActionChunk | None = None
    error: ChunkwireError | None = None

    def to_wire(self) -> dict[str, Any]:
        """The reply map: `{"id", "actions", "timing", "checkpoint"?}` or `{"id", "error"}`."""
        if self.chunk is None:
            assert self.error is not None
            return {"id": self.id, "error": self.error.to_wire()}
        wire = {"id": self.id, "actions": self.chunk.actions, "timing": dict(self.chunk.timing)}
        return {**wire, "checkpoint": self.chunk.checkpoint} if self.chunk.checkpoint else wire

    @classmethod
    def from_wire(cls, wire: object) -> InferReply:
        """Validate a reply. Raises `ProtocolViolation` when it is not one."""
        if not isinstance(wire, Mapping) or not isinstance(wire.get("id"), int):
            raise ProtocolViolation("The server's reply carries no id. Is this a Chunkwire server?")
        if "error" in wire:
            return cls(wire["id"], error=error_from_wire(wire["error"]))
        actions = wire.get("actions")
        if not isinstance(actions, np.ndarray) or actions.dtype.kind != "f":
            raise ProtocolViolation("The server's reply holds no floating-point `actions` array.", field="actions")
        checkpoint = str(wire.get("checkpoint") or "")
        return cls(wire["id"], ActionChunk(actions, dict(wire.get("timing") or {}), checkpoint))


def is_envelope(message: Mapping[Any, Any]) -> bool:
    """Whether a request is an envelope rather than openpi's bare observation."""
    return "id" in message and "observation" in message


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _one_or_rows(
    wire: Mapping[str, Any], name: str, batch: int | None, read: Callable[[Any], T]
) -> T | tuple[T, ...] | None:
    """One value for the whole request, or a list with one for each row of its batch."""
    value = wire.get(name)
    if not isinstance(value, list | tuple):
        return None if value is None else read(value)
    if batch is None or len(value) != batch:
        rows = "without a batch" if batch is None else f"for a batch of {batch}"
        raise CodecError(f"{name} is a list of {len(value)} {rows}. A list has one entry for each row.", field=name)
    return tuple(read(entry) for entry in value)


def require_whole(value: object, name: str, minimum: int) -> int:
    """A number of the wire that must be whole, from `minimum` and below 2^63. Raises `CodecError` naming it."""
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value < 2**63:
        raise CodecError(f"{name} must be a whole number from {minimum}, not {str(value)[:60]!r}.", field=name)
    return value


def _moment(raw: object) -> EpisodeMoment:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("env_id"), str):
        raise CodecError("episode must be a map with env_id, seed and step.", field="episode")
    for name in ("seed", "step"):
        if name not in raw:
            raise CodecError(f"episode.{name} is missing.", field=f"episode.{name}")
    return EpisodeMoment(raw["env_id"], require_whole(raw["seed"], "seed", 0), require_whole(raw["step"], "step", 0))
