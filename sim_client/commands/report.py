"""`sim-client report DIR`: write the report of a run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim_client.results.directory import read_results, report_path
from sim_client.results.report import headline, write_report
from sim_client.results.summary import Summary

__all__ = ["report_command", "show_result"]


def report_command(
    directory: Annotated[Path, typer.Argument(help="Results directory of an evaluation.", metavar="DIR")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Rebuild DIR/report.md from the records, also of an unfinished run."""
    show_result(directory, as_json)


def show_result(directory: Path, as_json: bool) -> Summary:
    """Write the report and print the result: one line and the report's path, or JSON.

    Raises:
        RecordsError: there is no evaluation in `directory`, or it is damaged.
    """
    summary = write_report(directory)
    run, _ = read_results(directory)
    report = report_path(directory)
    if as_json:
        places = {"env_id": run.options.env_id, "directory": str(directory), "report": str(report)}
        print(json.dumps({**places, **summary.to_json()}, indent=2))
    else:
        print(f"{headline(run, summary)}\nReport: {report}")
    return summary
