"""The protocol as a plain object, without I/O: frames in, questions for the policy and frames out.

One session belongs to one connection. A bare observation is openpi's request and is answered as openpi answers; an
envelope is ours. Replies use the array encoding of their request. Transports only move the bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from policy_protocol.codec import ArrayEncoding, pack, unpack
from policy_protocol.errors import ChunkwireError, CodecError, InvalidObservation
from policy_protocol.messages import (
    PROTOCOL,
    ActionChunk,
    EpisodeMoment,
    InferReply,
    InferRequest,
    Observation,
    is_envelope,
)
from policy_protocol.spec import PolicySpec
from policy_protocol.steps import StepsReply, StepsRequest, is_steps_request
from policy_server.observation_limits import require_modest

__all__ = ["Question", "Session"]


@dataclass
class Question:
    """One request, understood: the observations to answer and how the answer is to be written."""

    observations: tuple[Observation, ...]
    """One for each row of the request's batch; none once they are prepared."""
    noise_seed: int | tuple[int, ...] | None
    batched: bool
    """Whether the request had a batch, so that the reply has a leading axis."""
    deadline_ms: float | None
    encoding: ArrayEncoding
    envelope_id: int | None
    """None for openpi's bare observations, which are answered strictly in order."""
    episode: EpisodeMoment | tuple[EpisodeMoment, ...] | None = None
    """For the log, and for policies that replay; of the request, or of each row."""
    received: float = field(default_factory=time.perf_counter)

    def forget_observations(self) -> None:
        """They are prepared: images must not stay in memory until the answer is read."""
        self.observations = ()

    def row_seed(self, row: int) -> int | None:
        """Noise seed of a row: rows of one batch must not share their noise."""
        if isinstance(self.noise_seed, tuple):
            return self.noise_seed[row]
        if self.noise_seed is None or not self.batched:
            return self.noise_seed
        return (self.noise_seed + row * 0x9E3779B97F4A7C15) % 2**63


class Session:
    """Understands the requests of one connection and writes its replies.

    Args:
        spec: the policy that is served.
        max_batch: most rows in one request.
        features: what the server does beside answering, for the greeting.
    """

    def __init__(self, spec: PolicySpec, max_batch: int = 1024, features: Sequence[str] = ()) -> None:
        self._spec, self._features = spec, features
        self._max_batch = max_batch
        self._previous_total_ms: float | None = None

    def greeting(self) -> bytes:
        """The first frame: metadata that openpi clients read as a map, and the whole spec."""
        return pack({"protocol": PROTOCOL, "policy_spec": self._spec.to_wire(), "features": list(self._features)})

    def understand(self, frame: bytes | str) -> Question | StepsRequest:
        """Read one request.

        Raises:
            CodecError: the frame is not a message at all; without a `request_id` the connection should close (1007).
            InvalidObservation: the message is well-formed but wrong; the connection survives.
        """
        if isinstance(frame, str):
            raise CodecError("Requests are binary msgpack frames, not text.")
        decoded = unpack(frame)
        if not isinstance(decoded.value, Mapping):
            raise CodecError(f"A request is a map of observations, not a {type(decoded.value).__name__}.")
        try:
            return self._read(decoded.value, decoded.encoding)
        except ChunkwireError as error:
            error.request_id = _id_of(decoded.value)
            raise

    def _read(self, message: Mapping[Any, Any], encoding: ArrayEncoding) -> Question | StepsRequest:
        if is_steps_request(message):
            return StepsRequest.from_wire(message)
        if not is_envelope(message):
            require_modest(message)
            return Question((message,), None, False, None, encoding, None)
        if isinstance(batch := message.get("batch"), int):
            self.rows(batch)  # before each row's seed and moment are read
        return self.admit(InferRequest.from_wire(message), encoding)

    def admit(self, request: InferRequest, encoding: ArrayEncoding = ArrayEncoding.OPENPI) -> Question:
        """Take an envelope request, whichever transport decoded it, apart into rows.

        Raises:
            InvalidObservation: its batch is too large, an array has no leading axis of it, or it has more entries than
                any robot.
        """
        require_modest(request.observation, self.rows(request.batch))
        observations = self._split(request) if request.batch is not None else (request.observation,)
        return Question(
            observations,
            request.noise_seed,
            request.batch is not None,
            request.deadline_ms,
            encoding,
            request.id,
            request.episode,
        )

    def rows(self, batch: int | None) -> int:
        """Rows of a request with this batch, one at least: a batch of none is refused where the request is read.

        Raises:
            InvalidObservation: they are too many.
        """
        if batch is not None and batch > self._max_batch:
            raise InvalidObservation(
                f"batch is {batch} but this server takes at most {self._max_batch} rows in one request.", field="batch"
            )
        return max(1, batch or 1)

    def reply(self, question: Question, chunk: ActionChunk) -> InferReply:
        """The reply to an envelope, with the time since it arrived."""
        assert question.envelope_id is not None, "openpi's requests have no id"
        timing = {**chunk.timing, "total_ms": (time.perf_counter() - question.received) * 1e3}
        return InferReply(question.envelope_id, replace(chunk, timing=timing))

    def answer(self, question: Question, chunk: ActionChunk) -> bytes:
        """The reply frame to a question."""
        if question.envelope_id is not None:
            return pack(self.reply(question, chunk).to_wire(), question.encoding)
        timing, total_ms = chunk.timing, (time.perf_counter() - question.received) * 1e3
        server_timing = {"infer_ms": timing["infer_ms"]}
        if self._previous_total_ms is not None:
            server_timing["prev_total_ms"] = self._previous_total_ms
        self._previous_total_ms = total_ms
        answer = {
            "actions": chunk.actions,
            "policy_timing": {"infer_ms": timing["infer_ms"]},
            "server_timing": server_timing,
        }
        return pack(answer, question.encoding)

    def tell(self, reply: StepsReply) -> bytes:
        """The reply frame to a question about steps."""
        return pack(reply.to_wire())

    def refuse(self, envelope_id: int | None, error: ChunkwireError) -> bytes | str:
        """The frame that reports an error: an envelope's reply, or the one text frame that openpi clients expect."""
        if envelope_id is None:
            return f"{error.code}: {error.message}"
        return pack(InferReply(envelope_id, error=error).to_wire())

    def _split(self, request: InferRequest) -> tuple[Observation, ...]:
        assert request.batch is not None
        return tuple(
            {key: _row_of(key, value, row, request.batch) for key, value in request.observation.items()}
            for row in range(request.batch)
        )


def _id_of(message: Mapping[Any, Any]) -> int | None:
    """The id of an envelope whose other fields are wrong, so that the error can be matched."""
    if not is_envelope(message) and not is_steps_request(message):
        return None
    identifier = message["id"]
    return identifier if isinstance(identifier, int) and not isinstance(identifier, bool) else None


def _row_of(key: str, value: Any, row: int, batch: int) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {name: _row_of(f"{key}/{name}", inner, row, batch) for name, inner in value.items()}
    is_sequence = isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if is_sequence and len(value) == batch:
        return value[row]
    raise InvalidObservation(f"{key} must have a leading axis of {batch} (the request's batch).", field=key)
