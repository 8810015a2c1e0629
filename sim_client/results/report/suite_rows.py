"""Several runs, one row each, and what may be said of them together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sim_client.results.directory import read_results
from sim_client.results.report.caveats import caveats
from sim_client.results.report.wording import ShownRate, shown_rates
from sim_client.results.report.write import html_path
from sim_client.results.run_record import RunRecord
from sim_client.results.summary import Summary, summarize
from sim_client.statistics.rate import Rate

__all__ = ["SuiteRow", "SuiteTotal"]


@dataclass(frozen=True)
class SuiteRow:
    """One run of the suite."""

    directory: Path
    run: RunRecord
    summary: Summary
    remarks: tuple[str, ...]
    """Titles of the run's caveats."""

    @classmethod
    def read(cls, directory: Path) -> SuiteRow:
        """Raises `RecordsError`: there is no evaluation in `directory`."""
        run, records = read_results(directory)
        summary = summarize(run, records)
        return cls(directory, run, summary, tuple(caveat.title for caveat in caveats(run, records, summary)))

    @property
    def success(self) -> ShownRate:
        """success_once with the interval that holds for the run."""
        return shown_rates(self.run, self.summary)[0]

    @property
    def pace(self) -> str:
        """Episodes per minute; empty when unknown."""
        rate = self.summary.throughput.episodes_per_minute
        per = " a worker" if self.summary.throughput.per_worker else ""
        return "" if rate is None else f"{rate:.1f}{per}"

    def link(self, start: Path) -> str:
        """URL of the run's own report, relative to the folder `start`."""
        return quote(os.path.relpath(html_path(self.directory), start))


@dataclass(frozen=True)
class SuiteTotal:
    """All tasks together: the mean of their rates, so that a task with more episodes does not weigh more."""

    mean: float | None
    """Of success_once, over the tasks that have a scored episode."""
    measured: int
    tasks: int
    pooled: Rate | None
    """All episodes in one rate, where all tasks have the same number, fixed in advance: the mean is that rate."""

    @classmethod
    def of(cls, rows: Sequence[SuiteRow], without: int = 0) -> SuiteTotal:
        """Count.

        Args:
            without: tasks that were asked for and have no row.
        """
        rates = [row.summary.success_once for row in rows]
        values = [rate.value for rate in rates if rate.value is not None]
        fixed = all(row.summary.anytime is None for row in rows)
        equal = fixed and not without and len(values) == len(rates) and len({rate.episodes for rate in rates}) == 1
        pooled = Rate(sum(rate.successes for rate in rates), sum(rate.episodes for rate in rates)) if equal else None
        return cls(sum(values) / len(values) if values else None, len(values), len(rates) + without, pooled)

    def __str__(self) -> str:
        if self.mean is None:
            return f"No task of {self.tasks} has an episode with a verdict."
        text = f"Mean of {self.measured} task rates: {self.mean:.0%}"
        if self.measured < self.tasks:
            text += f" ({self.tasks - self.measured} of {self.tasks} have no episode with a verdict and are left out)"
        if self.pooled is None:
            return f"{text}. No interval: the numbers of episodes differ or were not fixed in advance."
        return f"{text}; as every task has the same number of episodes it is {self.pooled}, true of these tasks alone."
