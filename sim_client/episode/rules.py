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
    chunk_use: ChunkUse
    """How chunks are turned into actions."""
    settle_steps: int | None
    """Steps run after the first success; None runs on to the limit."""
    provenance: Provenance

    def __post_init__(self) -> None:
        self.chunk_use.check(self.spec)
