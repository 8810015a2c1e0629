"""The rules of asking a policy, without any socket: ids are matched and every reply is checked against the spec."""

from __future__ import annotations

import numpy as np

from policy_protocol import ActionChunk, EpisodeMoment, InferReply, InferRequest, Observation, PolicySpec
from policy_protocol.errors import ProtocolViolation, SpecMismatch
from policy_protocol.steps import StepsRequest

__all__ = ["Exchange"]


class Exchange:
    """One client's questions and their answers. WebSocket and gRPC clients move its messages.

    Args:
        spec: what the server promised on connect.
        allow_newer_checkpoint: take actions of other steps of the run, too.
    """

    def __init__(self, spec: PolicySpec, allow_newer_checkpoint: bool = False) -> None:
        self._spec, self._allow_newer_checkpoint = spec, allow_newer_checkpoint
        self._next_id = 0

    def ask(
        self,
        observation: Observation,
        noise_seed: int | tuple[int, ...] | None = None,
        episode: EpisodeMoment | tuple[EpisodeMoment, ...] | None = None,
        batch: int | None = None,
        deadline_ms: float | None = None,
    ) -> InferRequest:
        """A request with an id of its own."""
        return InferRequest(self._new_id(), observation, noise_seed, batch, deadline_ms, episode)

    def ask_steps(self, load: int | None) -> StepsRequest:
        """A question about steps, with an id of its own."""
        return StepsRequest(self._new_id(), load)

    def expect(self, spec: PolicySpec) -> None:
        """The server has loaded another step as it was told to: replies come from that one."""
        self._spec = spec

    def settle(self, request: InferRequest, reply: InferReply, url: str) -> ActionChunk:
        """Accept the reply to the request that is awaited, and to no other.

        Args:
            url: of the server that answered.

        Raises:
            SpecMismatch: the server has loaded another checkpoint meanwhile.
            ProtocolViolation: it answers another request, or the actions have the wrong shape or are not finite.
            ChunkwireError: the error that the server reported, under its own code.
        """
        if reply.id != request.id:
            raise ProtocolViolation(
                f"The server answered request {reply.id}, but request {request.id} is awaited. "
                "A late or doubled reply would put the robot one action behind, so the connection is given up."
            )
        if reply.error is not None:
            raise reply.error
        assert reply.chunk is not None, "a reply holds a chunk or an error"
        self._require_checkpoint(reply.chunk, url)
        self._require_promised(reply.chunk, request.batch)
        return reply.chunk

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _require_checkpoint(self, chunk: ActionChunk, url: str) -> None:
        """`serve --follow` loads newer steps under a live connection; one measurement must not mix two of them."""
        promised, found = str(self._spec.policy.checkpoint), chunk.checkpoint
        if found in ("", promised):
            return
        if self._allow_newer_checkpoint and found.rpartition("/")[0] == promised.rpartition("/")[0]:
            return
        raise SpecMismatch(
            f"The policy server at {url} answered from checkpoint {found}, but {promised} was served before. Start "
            "anew with this one, serve a fixed one with `serve --checkpoint DIR`, or make the client with "
            "allow_newer_checkpoint=True.",
            field="policy.checkpoint",
        )

    def _require_promised(self, chunk: ActionChunk, batch: int | None) -> None:
        promised = (self._spec.policy.action_horizon, self._spec.action.dimension)
        shape = promised if batch is None else (batch, *promised)
        if chunk.actions.shape != shape:
            raise ProtocolViolation(
                f"The server sent actions of shape {chunk.actions.shape}, but its spec promises {shape}.",
                field="actions",
            )
        if not np.isfinite(chunk.actions).all():
            first = tuple(int(axis) for axis in np.argwhere(~np.isfinite(chunk.actions))[0])
            raise ProtocolViolation(
                f"The server sent {chunk.actions[first]} at actions{list(first)}; every action must be finite. "
                "The policy itself is broken (diverged training or damaged parameters).",
                field="actions",
            )
