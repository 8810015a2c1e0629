"""Policies that ran the same tasks: each task by itself, and all together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from sim_client.errors import InvalidOption
from sim_client.results.comparison.comparison import Comparison, comparison_of
from sim_client.results.comparison.pair import PooledPair
from sim_client.results.comparison.run import ComparedRun, names_of, read_runs, require_several
from sim_client.results.comparison.verdict import Verdict, findings, verdicts_on
from sim_client.results.directory import evaluations_in, read_results
from sim_client.statistics.holm import holm
from sim_client.statistics.rate import Rate

__all__ = ["SuiteComparison", "compare_suites", "hold_suites"]


@dataclass(frozen=True)
class SuiteComparison:
    """Two policies in the order given, or more with the best first."""

    names: tuple[str, ...]
    """Of the policies."""
    tasks: tuple[Comparison, ...]
    """One per task that every policy ran, with Holm's correction over all pairs of all tasks."""
    verdicts: tuple[Verdict, ...]
    """One per pair of policies, over all episodes of these tasks."""
    left_out: tuple[str, ...]
    """What only some of the policies ran, a sentence each."""

    @property
    def subject(self) -> str:
        """What was compared on."""
        return f"Over {len(self.tasks)} tasks" if len(self.tasks) > 1 else self.tasks[0].env_id

    @property
    def sentence(self) -> str:
        """The result over all tasks."""
        return f"{self.subject}: {findings(self.verdicts)}"

    @property
    def by_task(self) -> str:
        """On which of the tasks a difference can be told."""
        known = [
            f"{one.ahead} is better than {one.behind} on {task.env_id}"
            for task in self.tasks
            for one in task.verdicts
            if one.told_apart
        ]
        open_tasks = [task.env_id for task in self.tasks if not any(one.told_apart for one in task.verdicts)]
        unknown = f"no difference can be told on {', '.join(open_tasks)}" if open_tasks else ""
        return "Task by task, after Holm's correction: " + "; ".join([*known, *filter(None, [unknown])]) + "."

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes it less than a comparison of the policies."""
        of_tasks = chain.from_iterable(
            (f"{task.env_id}: {warning}" for warning in task.warnings) for task in self.tasks
        )
        return (*self.left_out, *of_tasks)


def hold_suites(directories: Sequence[Path]) -> bool:
    """Whether every one is a folder of several tasks' results.

    Raises:
        InvalidOption: some are and some hold the results of one task.
    """
    suites = [directory for directory in directories if evaluations_in(directory)]
    if suites and len(suites) < len(directories):
        other = next(directory for directory in directories if directory not in suites)
        raise InvalidOption(
            f"{suites[0]} holds the results of several tasks and {other} does not. "
            "Name folders of several tasks, or directories of one task.",
            field="DIR",
        )
    return bool(suites)


def compare_suites(folders: Sequence[Path]) -> SuiteComparison:
    """Compare `success_once` on every task that all folders have.

    Raises:
        InvalidOption: fewer than two folders, one of them twice, a task twice in one of them, or no task in common.
        RecordsError: results are damaged.
    """
    require_several(folders)
    names = names_of(folders)
    by_folder = [_by_task(folder) for folder in folders]
    common = [task for task in by_folder[0] if all(task in tasks for tasks in by_folder)]
    if not common:
        raise InvalidOption(
            f"{' and '.join(map(str, folders))} have no task in common. Name folders whose tasks are the same.",
            field="DIR",
        )
    runs = [read_runs([tasks[task] for tasks in by_folder], names) for task in common]
    ranking = _ranking(runs)
    comparisons = _corrected([comparison_of(given, [given[place] for place in ranking]) for given in runs])
    pooled = [
        PooledPair(tuple(verdict.pair for verdict in verdicts))
        for verdicts in zip(*(comparison.verdicts for comparison in comparisons), strict=True)
    ]
    ranked_names = tuple(names[place] for place in ranking)
    return SuiteComparison(ranked_names, comparisons, verdicts_on(pooled), tuple(_left_out(names, by_folder, common)))


def _by_task(folder: Path) -> dict[str, Path]:
    """Task -> its results directory."""
    found: dict[str, Path] = {}
    for directory in evaluations_in(folder):
        task = read_results(directory)[0].options.env_id
        if (other := found.setdefault(task, directory)) is not directory:
            raise InvalidOption(
                f"{folder} holds two results of {task}, {other.name} and {directory.name}: which one is meant? "
                f"Compare the directories themselves: sim-client compare {other} {directory}.",
                field="DIR",
            )
    return found


def _ranking(runs: Sequence[tuple[ComparedRun, ...]]) -> list[int]:
    """The policies' places in the order of the comparison: two as given, more with the best over all tasks first."""
    places = list(range(len(runs[0])))
    if len(places) == 2:
        return places
    return sorted(places, key=lambda place: _total(given[place] for given in runs).value or 0.0, reverse=True)


def _total(runs: Iterable[ComparedRun]) -> Rate:
    rates = [one.summary.success_once for one in runs]
    return Rate(sum(rate.successes for rate in rates), sum(rate.episodes for rate in rates))


def _corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same with Holm's correction over all of their pairs."""
    every = [verdict for comparison in comparisons for verdict in comparison.verdicts]
    adjusted = iter(holm([verdict.difference.p_value for verdict in every]))
    return tuple(
        replace(
            comparison,
            verdicts=tuple(
                replace(verdict, p_adjusted=next(adjusted) if len(every) > 1 else None)
                for verdict in comparison.verdicts
            ),
        )
        for comparison in comparisons
    )


def _left_out(names: Sequence[str], by_folder: Sequence[Mapping[str, Path]], common: Sequence[str]) -> Iterator[str]:
    for task in dict.fromkeys(task for tasks in by_folder for task in tasks if task not in common):
        have = [name for name, tasks in zip(names, by_folder, strict=True) if task in tasks]
        yield f"{task} is not compared: of the policies only {', '.join(have)} ran it."
