"""All runs against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from sim_client.results.comparison.pair import RunPair
from sim_client.results.comparison.run import ComparedRun, read_runs
from sim_client.results.comparison.verdict import Verdict, findings, verdicts_on
from sim_client.results.comparison.warnings import warnings

__all__ = ["Comparison", "compare", "comparison_of"]


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
        return findings(self.verdicts)


def compare(directories: Sequence[Path]) -> Comparison:
    """Read the results in two or more directories and compare `success_once`.

    Raises:
        InvalidOption: fewer than two, one of them twice, or different tasks.
        RecordsError: there is no evaluation in one of them, or it is damaged.
    """
    given = read_runs(directories)
    ranked = given if len(given) == 2 else tuple(sorted(given, key=_rate, reverse=True))
    return comparison_of(given, ranked)


def comparison_of(given: Sequence[ComparedRun], ranked: Sequence[ComparedRun]) -> Comparison:
    """The runs of one task, every pair with a verdict.

    Args:
        given: in the order that the user named.
        ranked: two as given, several with the best first.
    """
    # Of a pair the second is the one that is expected to lead: the later of two, the better of several.
    pairs = [RunPair(*ranked)] if len(ranked) == 2 else [RunPair(low, high) for high, low in combinations(ranked, 2)]
    return Comparison(tuple(ranked), verdicts_on(pairs), warnings(given, pairs))


def _rate(one: ComparedRun) -> float:
    value = one.summary.success_once.value
    return -1.0 if value is None else value
