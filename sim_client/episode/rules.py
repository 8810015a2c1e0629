"""What all episodes of a run have in common."""

from __future__ import annotations

from dataclasses import dataclass

from policy_protocol import PolicySpec
from sim_client.episode.chunk_use import ChunkUse
from sim_client.episode.record import Provenance

__all__ = ["EpisodeRules"]


@dataclass(frozen=True)
class EpisodeRules:
    """How every episode is asked, run and ended.

    Raises:
        InvalidOption: the policy's chunks are too short for how they are to be used.
    """

    spec: PolicySpec
    env_id: str
    prompt: str
    execution_horizon: int
    """Actions of a chunk that are run before the next chunk is asked for."""
    settle_steps: int | None
    """Steps run after the first success; None runs on to the limit."""
    provenance: Provenance
    chunk_use: ChunkUse | None = None
    """How chunks are turned into actions; None: receding horizon with `execution_horizon`."""

    def __post_init__(self) -> None:
        self.chunks.check(self.spec)

    @property
    def chunks(self) -> ChunkUse:
        """How chunks are turned into actions."""
        return self.chunk_use or ChunkUse(self.execution_horizon)
