"""What may be said of two runs, or of every two of several, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim_client.results.comparison.pair import PooledPair, RunPair
from sim_client.statistics.difference import Difference
from sim_client.statistics.holm import holm

__all__ = ["GOAL", "SIGNIFICANT", "Verdict", "findings", "interval_text", "p_text", "verdicts_on"]

SIGNIFICANT = 0.05
"""Two runs are told apart where p is smaller."""

GOAL = 0.05
"""Half the width of the interval to which the number of further episodes is told."""


@dataclass(frozen=True)
class Verdict:
    """On one pair of runs, or on one pair of policies over several tasks."""

    pair: RunPair | PooledPair
    difference: Difference
    p_adjusted: float | None = None
    """After Holm, where several pairs are tested; None for a single pair."""

    @property
    def p_value(self) -> float:
        """The p-value that decides."""
        return self.difference.p_value if self.p_adjusted is None else self.p_adjusted

    @property
    def told_apart(self) -> bool:
        """Whether one is better than the other beyond chance."""
        return self.p_value < SIGNIFICANT

    @property
    def ahead(self) -> str | None:
        """Name of the run with the higher rate, None where they are equal or nothing is known."""
        value = self.difference.value
        return None if not value else (self.pair.second if value > 0 else self.pair.first).name

    @property
    def behind(self) -> str:
        """Name of the run that is not ahead."""
        first, second = self.pair.first.name, self.pair.second.name
        return first if self.ahead == second else second

    @property
    def lead(self) -> tuple[float, float]:
        """The 95% interval, in favour of the run that is ahead."""
        low, high = self.difference.interval
        return (-high, -low) if self.ahead == self.pair.first.name else (low, high)

    def __str__(self) -> str:
        if self.difference.value is None:
            return "No difference can be told: there is no episode to compare."
        more = self.difference.more_episodes(GOAL)
        prospect = f"; {_count(more, 'more episode')} of each would narrow it to ±{GOAL * 100:.0f}" if more else ""
        return f"{self._finding(self.difference.value)}{prospect}."

    def _finding(self, value: float) -> str:
        interval, p = f"95% {interval_text(self.lead)}", f"p={p_text(self.p_value)}".replace("=<", "<")
        if self.p_adjusted is not None:
            p += " after Holm"
        points = _count(round(abs(value) * 100), "point")
        if self.told_apart:
            return f"{self.ahead} is better by {points}, {interval}, {p}"
        if self.ahead is None:
            return f"No difference can be told: both succeed equally often, {interval}, {p}"
        # The exact tests ask for a little more than the intervals do.
        but = "but " if self.lead[0] > 0 else ""
        return f"No difference can be told: {self.ahead} is ahead by {points}, {interval}, {but}{p}"


def verdicts_on(pairs: Sequence[RunPair | PooledPair]) -> tuple[Verdict, ...]:
    """A verdict on every pair, with Holm's correction where they are several."""
    differences = [pair.difference() for pair in pairs]
    adjusted = holm([difference.p_value for difference in differences])
    return tuple(
        Verdict(pair, difference, p if len(pairs) > 1 else None)
        for pair, difference, p in zip(pairs, differences, adjusted, strict=True)
    )


def findings(verdicts: Sequence[Verdict]) -> str:
    """What is known of one pair, or of several, in one or two sentences."""
    if len(verdicts) == 1:
        return str(verdicts[0])
    apart = [f"{one.ahead} is better than {one.behind}" for one in verdicts if one.told_apart]
    others = [f"{one.pair.second.name} and {one.pair.first.name}" for one in verdicts if not one.told_apart]
    known = f"After Holm's correction (p<{SIGNIFICANT:g}): {', '.join(apart)}." if apart else ""
    unknown = f"No difference can be told between {', nor between '.join(others)}." if others else ""
    return f"{known} {unknown}".strip()


def interval_text(interval: tuple[float, float]) -> str:
    """`[-3, 21]`, in points."""
    low, high = (round(bound * 100) for bound in interval)
    return f"[{low}, {high}]"


def p_text(p_value: float) -> str:
    """`0.013`, or `<0.001`."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.2g}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
