"""The stages of a task at which runs can differ."""

from __future__ import annotations

from collections.abc import Sequence

from sim_client.episode.record import EpisodeRecord
from sim_client.results.comparison.pair import Judge, succeeded
from sim_client.results.comparison.run import ComparedRun
from sim_client.results.summary import HEADLINE

__all__ = ["stage_judges"]


def stage_judges(runs: Sequence[ComparedRun]) -> dict[str, Judge]:
    """Name -> whether an episode got there: the flags that every run reports, in the task's order, then success."""
    flags = [flag for flag in runs[0].summary.stages if all(flag in one.summary.stages for one in runs)]
    return {**{flag: _reached(flag) for flag in flags}, HEADLINE: succeeded, "success_at_end": _at_end}


def _reached(flag: str) -> Judge:
    return lambda record: record.stages.get(flag) is not None


def _at_end(record: EpisodeRecord) -> bool:
    return record.success_at_end
