"""How fast the episodes came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sim_client.episode.record import EpisodeRecord

__all__ = ["Throughput", "throughput"]

_CLOCK_GAP_S = 2.0
"""Records are stamped in whole seconds: episodes this close together ran without a pause between them."""


@dataclass(frozen=True)
class Throughput:
    """Speed of a run, of the pauses between a stop and its continuation not one second."""

    working_s: float
    """Seconds during which at least one episode ran; see `per_worker`."""
    episodes_per_minute: float | None
    """Episodes with a verdict per minute of them; None when the records carry no time."""
    per_worker: bool = False
    """The seconds are those of all workers together: of environments side by side no record tells which overlapped."""


def throughput(records: Sequence[EpisodeRecord], *, vectorised: bool) -> Throughput:
    """From when each episode ended and how long it took, its void attempts included.

    Those of an earlier sitting, of which no record tells when they were, count as if just before the episode.

    Args:
        vectorised: an episode's wall time is its share of that of several which ran side by side in one worker.
    """
    spans = [_span(record) for record in records if record.finished_at]
    working = sum(end - start for start, end in spans) if vectorised else _covered(spans)
    scored = sum(record.outcome != "error" for record in records if record.finished_at)
    return Throughput(round(working, 1), round(60 * scored / working, 2) if working else None, vectorised)


def _span(record: EpisodeRecord) -> tuple[float, float]:
    end = datetime.fromisoformat(record.finished_at).timestamp()
    return end - record.wall.total_s - record.lost_s, end


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of the spans: workers side by side count once, a pause not at all."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > reached:
            covered += end - (start if start > reached + _CLOCK_GAP_S else reached)
            reached = end
    return covered
