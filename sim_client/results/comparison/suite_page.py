"""Policies over several tasks, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sim_client.results.comparison.page import Section, as_markdown, points
from sim_client.results.comparison.plain import comparison_json, difference_json
from sim_client.results.comparison.suite import SuiteComparison
from sim_client.results.comparison.verdict import Verdict, p_text
from sim_client.results.summary import HEADLINE

__all__ = ["suite_comparison_json", "suite_markdown", "suite_sections"]


def suite_sections(suite: SuiteComparison) -> Iterator[Section]:
    """What each policy reached on each task, and the pairs."""
    yield _rates(suite)
    yield _pairs(suite)


def suite_markdown(suite: SuiteComparison) -> str:
    """The whole comparison, its result as the heading."""
    return as_markdown(suite.sentence, (suite.by_task, *suite.warnings), suite_sections(suite))


def suite_comparison_json(suite: SuiteComparison) -> dict[str, Any]:
    """What `sim-client compare --json` prints of folders; rates and differences are shares from -1 to 1."""
    return {
        "headline": HEADLINE,
        "result": suite.sentence,
        "by_task": suite.by_task,
        "warnings": list(suite.left_out),
        "policies": list(suite.names),
        "pairs": [
            {
                "first": verdict.pair.first.name,
                "second": verdict.pair.second.name,
                "paired": verdict.pair.paired,
                **difference_json(verdict.difference),
                "p_value": verdict.difference.p_value,
                "p_value_holm": verdict.p_adjusted,
                "told_apart": verdict.told_apart,
                "result": str(verdict),
            }
            for verdict in suite.verdicts
        ],
        "tasks": [comparison_json(task) for task in suite.tasks],
    }


def _rates(suite: SuiteComparison) -> Section:
    rows = []
    for task in suite.tasks:
        by_name = {one.name: str(one.summary.success_once) for one in task.runs}
        rows.append((task.env_id, *(by_name[name] for name in suite.names)))
    return Section(
        "Tasks",
        ("task", *suite.names),
        tuple(rows),
        f"{HEADLINE} as k/n = share [95% Wilson interval] over all episodes of a run that did not end in an error.",
    )


def _pairs(suite: SuiteComparison) -> Section:
    rows = [(task.env_id, *_row(verdict)) for task in suite.tasks for verdict in task.verdicts]
    rows += [("all together", *_row(verdict)) for verdict in suite.verdicts]
    corrected = "p after Holm"
    return Section(
        "Pairs",
        ("task", "policy", "against", "episodes", "points ahead, 95%", "p", corrected),
        tuple(rows),
        "Exact McNemar tests and Tango's intervals where the seeds are the same, else Fisher's and Newcombe's. Holm's "
        "correction is over the rows of the tasks, and over those of all together; each interval is 95% by itself. "
        "All together counts every episode once, so a task with more episodes weighs more.",
    )


def _row(verdict: Verdict) -> tuple[str, ...]:
    pair, difference = verdict.pair, verdict.difference
    first, second = difference.first.episodes, difference.second.episodes
    return (
        pair.second.name,
        pair.first.name,
        f"{second} paired" if pair.paired else f"{second} and {first}",
        points(difference),
        p_text(difference.p_value),
        p_text(verdict.p_value),
    )
