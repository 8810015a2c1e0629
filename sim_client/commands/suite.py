"""`sim-client --env A,B,C` and `--suite NAME`: several tasks, and one table of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from policy_protocol import PolicySpec
from policy_protocol.errors import ServerUnavailable
from sim_client.commands.known_environment import require_known
from sim_client.commands.series_report import run_and_report
from sim_client.commands.series_table import show_table
from sim_client.errors import Interrupted
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.series import Series
from sim_client.evaluation.suite import suite_of
from sim_client.results.options import EvaluationOptions
from sim_client.results.report import SuiteRow, SuiteTotal, suite_json, write_suite_report

__all__ = ["measure_suite"]

Evaluate = Callable[[EvaluationOptions, Dial, Path], object]


def measure_suite(
    tasks: Sequence[EvaluationOptions],
    dial: Dial,
    out: Path | None,
    as_json: bool,
    evaluate: Evaluate,
    console: Console,
) -> None:
    """Run, or go on with, every task; print the table and write `suite.md` and `suite.html`.

    Args:
        evaluate: runs one task in the directory given.

    Raises:
        IncompleteRun: a task failed, or has episodes that ended in an error.
        ServerUnavailable: nobody answers any more.
        Interrupted: Ctrl-C.
    """
    spec = _spec(dial, console)
    series = suite_of(tasks, spec, out)
    same_policy = replace(dial, spec_hash=spec.hash)

    def run(options: EvaluationOptions, directory: Path) -> None:
        require_known(options.env_id, console)
        evaluate(options, same_policy, directory)

    run_and_report(
        series,
        run=lambda: series.run(run, console, stop_at=(ServerUnavailable,)),
        write=lambda: _write(series),
        show=lambda results: _show(series, results, as_json),
    )


def _spec(dial: Dial, console: Console) -> PolicySpec:
    try:
        with dial.connect(lambda text: console.print(text, markup=False, soft_wrap=True)) as policy:
            return policy.spec
    except KeyboardInterrupt as error:
        raise Interrupted("Stopped while setting up. Run the same command again.") from error


def _write(series: Series) -> dict[str, Path]:
    results = series.results()
    if results:
        write_suite_report(series.folder, tuple(results.values()), series.unfinished())
    return results


def _show(series: Series, results: Mapping[str, Path], as_json: bool) -> None:
    unfinished = series.unfinished()
    if as_json:
        page = {"directory": str(series.folder), "report": str(series.folder / "suite.md")} if results else {}
        print(json.dumps({**page, **suite_json(tuple(results.values()), unfinished)}, indent=2))
    elif results:
        rows = tuple(map(SuiteRow.read, results.values()))
        total = SuiteTotal.of(rows, len(unfinished.keys() - results.keys()))
        lines = ("", str(total), f"Report: {series.folder / 'suite.html'}")
        show_table(
            ("task", "success_once", "success_at_end", "steps", "episodes/min", "errors"), map(_row, rows), lines
        )


def _row(row: SuiteRow) -> tuple[str, ...]:
    summary = row.summary
    return (
        row.run.options.env_id,
        str(row.success),
        str(summary.success_at_end),
        f"{summary.steps['q50']:g}" if summary.steps else "-",
        row.pace or "-",
        str(summary.outcomes["error"]),
    )
