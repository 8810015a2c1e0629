"""Success over training steps, and what may be said of the best one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sim_client.results.comparison.pair import RunPair
from sim_client.results.comparison.run import ComparedRun
from sim_client.results.comparison.verdict import Verdict
from sim_client.results.comparison.warnings import warnings
from sim_client.results.directory import read_results
from sim_client.results.report.wording import ShownRate, shown_rates
from sim_client.results.training_loss import TrainingLoss
from sim_client.statistics.holm import holm

__all__ = ["SweepCurve", "SweepPoint"]


@dataclass(frozen=True)
class SweepPoint:
    """One step."""

    step: int
    run: ComparedRun
    loss: float | None
    """Training loss around the step; None when unknown."""

    @property
    def success(self) -> ShownRate:
        """success_once with the interval that holds for the run."""
        return shown_rates(self.run.run, self.run.summary)[0]


@dataclass(frozen=True)
class SweepCurve:
    """All steps, at least one, ascending."""

    points: tuple[SweepPoint, ...]
    loss: TrainingLoss

    @classmethod
    def read(cls, results: Mapping[int, Path], loss: TrainingLoss) -> SweepCurve:
        """Read the results directory of each step. Raises `RecordsError`: there is no evaluation in one."""
        points = (
            SweepPoint(step, ComparedRun(f"step {step}", path, *read_results(path)), loss.at(step))
            for step, path in sorted(results.items())
        )
        return cls(tuple(points), loss)

    @property
    def env_id(self) -> str:
        """The task of all."""
        return self.last.run.run.options.env_id

    @property
    def last(self) -> SweepPoint:
        """The most trained one."""
        return self.points[-1]

    @property
    def best(self) -> SweepPoint | None:
        """The highest rate, of equals the most trained; None when no episode has a verdict."""
        scored = [point for point in self.points if point.success.rate.episodes]
        return max(scored, key=lambda point: (point.success.rate.value, point.step), default=None)

    @cached_property
    def verdict(self) -> Verdict | None:
        """The best step against the last, where that is another one.

        The best is best of all that were looked at, so its p-value is Holm's over every step against the last.
        """
        if self.best is None or self.best is self.last:
            return None
        others = self.points[:-1]
        pairs = [RunPair(self.last.run, point.run) for point in others]
        differences = [pair.difference() for pair in pairs]
        adjusted = holm([difference.p_value for difference in differences])
        place = others.index(self.best)
        return Verdict(pairs[place], differences[place], adjusted[place] if len(pairs) > 1 else None)

    @property
    def sentence(self) -> str:
        """The result."""
        if self.best is None:
            return "No step has an episode with a verdict."
        best = f"step {self.best.step} with {self.best.success}"
        if len(self.points) == 1:
            return f"Only one step: {best}."
        if self.verdict is None:
            return f"No other is ahead of the last: {best}." if self._shared else f"The last one is the best: {best}."
        return f"Best is {best}, here compared with the last, step {self.last.step}. {self.verdict}"

    @property
    def note(self) -> str:
        """What choosing does to a rate; empty where nothing was chosen."""
        if len(self.points) == 1 or self.best is None or (self.verdict is None and self._shared):
            return ""
        seeds = self.best.run.run.seeds
        holm_note = (
            " Its p-value is corrected (Holm) for every step's comparison with the last; the interval is 95% by itself."
            if self.verdict is not None and self.verdict.p_adjusted is not None
            else ""
        )
        return (
            "The best of several is chosen by these very episodes, so its rate is likely somewhat too high. Measure it "
            f"anew on other episodes, such as --seed {max(seeds) + 1}.{holm_note}"
        )

    @property
    def _shared(self) -> bool:
        """Whether several steps have the highest rate."""
        rates = [point.success.rate.value for point in self.points]
        return self.best is not None and rates.count(self.best.success.rate.value) > 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the steps less than comparable, and where a loss is missing."""
        runs = [point.run for point in self.points]
        pairs = [RunPair(self.last.run, point.run) for point in self.points[:-1]]
        return (*warnings(runs, pairs), *((self.loss.absent,) if self.loss.absent else ()))
