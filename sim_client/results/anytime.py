"""The interval of a run whose number of episodes depends on its results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from sim_client.episode.record import EpisodeRecord
from sim_client.results.run_record import RunRecord
from sim_client.statistics.sequence import ConfidenceSequence

__all__ = ["AnytimeInterval"]


@dataclass(frozen=True)
class AnytimeInterval:
    """Holds the true rate of success_once with 95%, whenever one looks at it and whenever one stops."""

    low: float
    """From 0 to 1."""
    high: float
    episodes: int
    """It is over so many from the list's beginning: up to the first that has no verdict."""

    @classmethod
    def of(cls, run: RunRecord, scored: Iterable[EpisodeRecord]) -> AnytimeInterval | None:
        """None for a run without `--stop-when-sure`.

        Args:
            scored: the episodes that have a verdict.
        """
        if run.options.stop_when_sure is None:
            return None
        if run.sure_interval is not None:
            return cls(*run.sure_interval, len(run.counted_seeds))
        verdicts = {record.seed: record.success_once for record in scored}
        sequence = ConfidenceSequence()
        for seed in takewhile(verdicts.__contains__, run.seeds):
            sequence.add(verdicts[seed])
        return cls(*sequence.interval, sequence.episodes)

    def __str__(self) -> str:
        return f"[{self.low:.0%}, {self.high:.0%}]"
