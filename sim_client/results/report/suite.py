"""`suite.md` and `suite.html`: the rows of several runs and their total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sim_client.results.report.markdown import table
from sim_client.results.report.suite_rows import SuiteRow, SuiteTotal
from sim_client.results.report.wording import at_end
from sim_client.results.report.write import write_files
from sim_client.results.summary import HEADLINE

__all__ = ["suite_json", "write_suite_report"]


def write_suite_report(
    directory: Path, results: Sequence[Path], failed: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write `suite.md` and `suite.html` into `directory`, which is made if need be.

    Args:
        results: directories of evaluations, in the order of the rows.
        failed: task -> why it has no result, or no whole one.

    Raises:
        RecordsError: one of them holds no evaluation, or a file cannot be written.
    """
    from sim_client.results.report.suite_html import suite_html  # jinja2 and matplotlib

    rows = tuple(map(SuiteRow.read, results))
    total = _total(rows, failed)
    write_files(
        {
            directory / "suite.md": _markdown(directory, rows, total, failed),
            directory / "suite.html": suite_html(directory, rows, total, failed),
        },
        "the same command writes it and repeats no episode",
    )


def suite_json(results: Sequence[Path], failed: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """What `--json` prints: every run's summary, the total, and what failed. Raises `RecordsError`."""
    rows = tuple(map(SuiteRow.read, results))
    total = _total(rows, failed)
    return {
        "headline": HEADLINE,
        "tasks": [
            {"env_id": row.run.options.env_id, "directory": str(row.directory), **row.summary.to_json()} for row in rows
        ],
        "total": {
            "mean_of_task_rates": total.mean,
            "measured_tasks": total.measured,
            "tasks": total.tasks,
            "pooled": None if total.pooled is None else str(total.pooled),
            "text": str(total),
        },
        "failed": dict(failed),
    }


def _total(rows: Sequence[SuiteRow], failed: Mapping[str, str]) -> SuiteTotal:
    return SuiteTotal.of(rows, len(failed.keys() - {row.run.options.env_id for row in rows}))


def _markdown(directory: Path, rows: Sequence[SuiteRow], total: SuiteTotal, failed: Mapping[str, str]) -> str:
    header = ("task", HEADLINE, "at the end", "median steps", "episodes per minute", "errors", "remarks", "report")
    lines = [f"# {total}", ""]
    if failed:
        lines += ["Without a result, or without a whole one:", "", *table(("task", "why"), failed.items()), ""]
    lines += [*table(header, (_cells(row, directory) for row in rows)), ""]
    interval = "95% interval, Wilson's where nothing else is said"
    lines.append(f"Rates are k/n = share [{interval}] over the episodes that did not end in an error.")
    return "\n".join(lines) + "\n"


def _cells(row: SuiteRow, directory: Path) -> tuple[object, ...]:
    summary = row.summary
    return (
        row.run.options.env_id,
        row.success,
        f"{summary.success_at_end} ({at_end(row.run)})",
        f"{summary.steps['q50']:g}" if summary.steps else "-",
        row.pace or "-",
        summary.outcomes["error"],
        "; ".join(row.remarks) or "none",
        f"[report]({row.link(directory)})",
    )
