"""`sim-client report DIR`: write the report of a run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim_client.results.directory import read_results, report_path
from sim_client.results.report import headline, html_path, write_report
from sim_client.results.summary import Summary, summarize

__all__ = ["report_command", "show_result"]


def report_command(
    directory: Annotated[Path, typer.Argument(help="Results directory of an evaluation.", metavar="DIR")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Rebuild DIR/report.md and DIR/report.html from the records, also of an unfinished run."""
    write_report(directory)
    show_result(directory, as_json)


def show_result(directory: Path, as_json: bool) -> Summary:
    """Print the result of a run whose report is written: one line and the report's path, or JSON.

    Raises:
        RecordsError: there is no evaluation in `directory`, or it is damaged.
    """
    run, records = read_results(directory)
    summary = summarize(run, records)
    report = report_path(directory)
    if as_json:
        places = {"directory": str(directory), "report": str(report), "html": str(html_path(directory))}
        numbers = {**summary.to_json(), "stopped_after": run.stopped_after}
        print(json.dumps({"env_id": run.options.env_id, **places, **numbers}, indent=2))
    else:
        print(f"{headline(run, summary)}\nReport: {html_path(directory)}")
    return summary
