"""Stopping early without fooling oneself: an anytime-valid interval over the episodes in the order of the list.

Several workers finish short episodes first, and successes are short. So the interval is fed with the list's beginning
only, as far as it is finished without a gap: which episodes count then depends on no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sim_client.episode.record import EpisodeRecord
from sim_client.statistics.sequence import ConfidenceSequence

__all__ = ["StopRule"]


class StopRule:
    """Says after how many episodes of the list the rate is known well enough.

    Args:
        seeds: of the list, in order.
        width: of the interval at which to stop.
    """

    def __init__(self, seeds: Sequence[int], width: float) -> None:
        self._seeds, self._width = seeds, width
        self._finished: dict[int, bool] = {}
        self._counted = 0
        self._sequence = ConfidenceSequence()

    @property
    def interval(self) -> tuple[float, float]:
        """The anytime-valid 95% interval over the episodes counted so far."""
        return self._sequence.interval

    def sure_after(self, records: Iterable[EpisodeRecord]) -> int | None:
        """Add finished episodes; the length of the list's beginning that is enough, None when it is not yet.

        An episode that ended in an error holds the count up: it has no verdict.
        """
        self._finished |= {one.seed: one.success_once for one in records if one.outcome != "error"}
        while not self._sure and self._counted < len(self._seeds) and self._seeds[self._counted] in self._finished:
            self._sequence.add(self._finished[self._seeds[self._counted]])
            self._counted += 1
        return self._counted if self._sure else None

    @property
    def _sure(self) -> bool:
        low, high = self.interval
        return high - low <= self._width
