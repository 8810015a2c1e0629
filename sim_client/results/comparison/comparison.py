"""All runs against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from sim_client.results.comparison.pair import RunPair
from sim_client.results.comparison.run import ComparedRun, read_runs
from sim_client.results.comparison.verdict import SIGNIFICANT, Verdict
from sim_client.results.comparison.warnings import warnings
from sim_client.statistics.holm import holm

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Two runs in the order given, or more with the best first."""

    runs: tuple[ComparedRun, ...]
    verdicts: tuple[Verdict, ...]
    """One per pair."""
    warnings: tuple[str, ...]

    @property
    def env_id(self) -> str:
        """The task of all runs."""
        return self.runs[0].run.options.env_id

    @property
    def sentence(self) -> str:
        """The result."""
        if len(self.verdicts) == 1:
            return str(self.verdicts[0])
        apart = [f"{one.ahead} is better than {_behind(one)}" for one in self.verdicts if one.told_apart]
        others = [f"{one.pair.second.name} and {one.pair.first.name}" for one in self.verdicts if not one.told_apart]
        known = f"After Holm's correction (p<{SIGNIFICANT:g}): {', '.join(apart)}." if apart else ""
        unknown = f"No difference can be told between {', nor between '.join(others)}." if others else ""
        return f"{known} {unknown}".strip()


def compare(directories: Sequence[Path]) -> Comparison:
    """Read the results in two or more directories and compare `success_once`.

    Raises:
        InvalidOption: fewer than two, one of them twice, or different tasks.
        RecordsError: there is no evaluation in one of them, or it is damaged.
    """
    given = read_runs(directories)
    runs = given if len(given) == 2 else tuple(sorted(given, key=_rate, reverse=True))
    # Of a pair the second is the one that is expected to lead: the later of two, the better of several.
    pairs = [RunPair(*given)] if len(given) == 2 else [RunPair(low, high) for high, low in combinations(runs, 2)]
    differences = [pair.difference() for pair in pairs]
    adjusted = holm([difference.p_value for difference in differences])
    verdicts = tuple(
        Verdict(pair, difference, p if len(pairs) > 1 else None)
        for pair, difference, p in zip(pairs, differences, adjusted, strict=True)
    )
    return Comparison(runs, verdicts, warnings(given, pairs))


def _rate(one: ComparedRun) -> float:
    value = one.summary.success_once.value
    return -1.0 if value is None else value


def _behind(verdict: Verdict) -> str:
    pair = verdict.pair
    return pair.first.name if verdict.ahead == pair.second.name else pair.second.name
