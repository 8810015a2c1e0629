"""Two runs, and which of their episodes are set against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sim_client.episode.record import EpisodeRecord
from sim_client.results.comparison.run import ComparedRun
from sim_client.statistics.difference import Difference
from sim_client.statistics.paired import PairedDifference
from sim_client.statistics.rate import Rate
from sim_client.statistics.unpaired import UnpairedDifference

__all__ = ["Judge", "PooledPair", "RunPair", "succeeded"]

Judge = Callable[[EpisodeRecord], bool]
"""What counts as success."""


def succeeded(record: EpisodeRecord) -> bool:
    """The success that the headline reports, `success_once`."""
    return record.success_once


@dataclass(frozen=True)
class RunPair:
    """Paired by seed where the two lists of seeds have at least half of the shorter one in common."""

    first: ComparedRun
    second: ComparedRun

    @property
    def shared(self) -> frozenset[int]:
        """Seeds that both runs were given."""
        return frozenset(self.first.run.counted_seeds) & frozenset(self.second.run.counted_seeds)

    @property
    def paired(self) -> bool:
        """Decided by the lists of seeds alone, never by results."""
        shorter = min(len(one.run.counted_seeds) for one in (self.first, self.second))
        return 2 * len(self.shared) >= shorter

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that both have a verdict on, in the order of the first run."""
        return tuple(seed for seed in self.first.run.counted_seeds if seed in self._both)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What a paired comparison cannot use: `3 that only b was given` and the like."""
        every = frozenset(self.first.run.counted_seeds) | frozenset(self.second.run.counted_seeds)
        reasons = Counter(self._reason(seed) for seed in sorted(every) if seed not in self._both)
        return tuple(f"{count} {reason}" for reason, count in reasons.items())

    def difference(self, judge: Judge = succeeded) -> Difference:
        """Second minus first."""
        if not self.paired:
            return UnpairedDifference(_rate(self.first, judge), _rate(self.second, judge))
        first, second = self.first.scored, self.second.scored
        return PairedDifference.of((judge(first[seed]), judge(second[seed])) for seed in self.seeds)

    @property
    def _both(self) -> frozenset[int]:
        return frozenset(self.first.scored) & frozenset(self.second.scored)

    def _reason(self, seed: int) -> str:
        if seed not in self.shared:
            only = self.first if seed in self.first.run.counted_seeds else self.second
            return f"that only {only.name} was given"
        for one in (self.first, self.second):
            if seed in one.errors:
                return f"that ended in an error in {one.name}"
        unfinished = self.second if seed in self.first.scored else self.first
        return f"that {unfinished.name} has still to run"


@dataclass(frozen=True)
class PooledPair:
    """The same two policies on several tasks, every episode counted once."""

    pairs: tuple[RunPair, ...]
    """One per task, their first runs of one policy and their second runs of the other."""

    @property
    def first(self) -> ComparedRun:
        """A run that bears the first policy's name."""
        return self.pairs[0].first

    @property
    def second(self) -> ComparedRun:
        """A run that bears the second policy's name."""
        return self.pairs[0].second

    @property
    def paired(self) -> bool:
        """Whether the episodes of every task are."""
        return all(pair.paired for pair in self.pairs)

    def difference(self) -> Difference:
        """Second minus first, over all episodes."""
        if not self.paired:
            return UnpairedDifference(self._total("first"), self._total("second"))
        differences = [pair.difference() for pair in self.pairs]
        cells = ("both", "only_first", "only_second", "neither")
        return PairedDifference(*(sum(getattr(one, cell) for one in differences) for cell in cells))

    def _total(self, side: str) -> Rate:
        rates = [_rate(getattr(pair, side), succeeded) for pair in self.pairs]
        return Rate(sum(rate.successes for rate in rates), sum(rate.episodes for rate in rates))


def _rate(one: ComparedRun, judge: Judge) -> Rate:
    return Rate(sum(map(judge, one.scored.values())), len(one.scored))
