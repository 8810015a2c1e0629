"""Writing the report of one run."""

from __future__ import annotations

import shlex
from pathlib import Path

from sim_client.errors import RecordsError
from sim_client.files import replacing
from sim_client.results.directory import read_results, report_path
from sim_client.results.report.markdown import markdown
from sim_client.results.summary import Summary, summarize

__all__ = ["html_path", "write_files", "write_report"]


def html_path(directory: Path) -> Path:
    """Where the HTML report of the evaluation in `directory` belongs: beside the Markdown."""
    return report_path(directory).with_suffix(".html")


def write_report(directory: Path) -> Summary:
    """Read the results in `directory` and write `report.md` and `report.html` beside them.

    Raises:
        RecordsError: there is no evaluation, it is damaged, or the report cannot be written.
    """
    from sim_client.results.report.html import html  # jinja2 and matplotlib, which `--help` need not wait for

    run, records = read_results(directory)
    summary = summarize(run, records)
    write_files(
        {
            report_path(directory): markdown(run, records, summary),
            html_path(directory): html(directory, run, records, summary),
        },
        f"`sim-client report {shlex.quote(str(directory))}` writes the report",
    )
    return summary


def write_files(texts: dict[Path, str], remedy: str) -> None:
    """Write each text to its path, never half of one.

    Args:
        remedy: what writes them later, for the error to name.

    Raises:
        RecordsError: names the file that cannot be written.
    """
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                draft.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RecordsError(
                f"{path} cannot be written: {error.strerror or error}. All finished episodes are kept. "
                f"Once that is mended, {remedy}."
            ) from error
