"""`suite.html`: the page of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sim_client.results.report.page import render
from sim_client.results.report.rate_plots import success_plot

if TYPE_CHECKING:
    from sim_client.results.report.suite_rows import SuiteRow, SuiteTotal

__all__ = ["suite_html"]


def suite_html(directory: Path, rows: Sequence[SuiteRow], total: SuiteTotal, failed: Mapping[str, str]) -> str:
    """The page.

    Args:
        directory: where it will lie; the links to the runs' reports start there.
        failed: task -> why it has no result, or no whole one.
    """
    rates = [replace(row.success, name=row.run.options.env_id) for row in rows]
    return render(
        "suite.html.j2",
        rows=rows,
        total=total,
        failed=failed,
        directory=directory,
        policies=tuple(dict.fromkeys(row.run.checkpoint for row in rows)),
        plots={"success": success_plot("suite", rates)} if rows else {},
    )
