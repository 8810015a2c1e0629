"""The record of an episode that the infrastructure broke: no verdict on the policy."""

from __future__ import annotations

from datetime import UTC, datetime

from sim_client.episode.record import EpisodeRecord
from sim_client.episode.rules import EpisodeRules
from sim_client.evaluation.work_list import Assignment

__all__ = ["void_record"]


def void_record(rules: EpisodeRules, assignment: Assignment, attempts: int, error: str, lost_s: float) -> EpisodeRecord:
    """An `error` record.

    Args:
        attempts: how often the episode was begun.
        error: code and message.
        lost_s: seconds spent on it.
    """
    return EpisodeRecord(
        index=assignment.index,
        seed=assignment.seed,
        env_id=rules.env_id,
        outcome="error",
        success_once=False,
        success_at_end=False,
        steps=0,
        provenance=rules.provenance,
        attempts=attempts,
        lost_s=round(lost_s, 3),
        error=error,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
