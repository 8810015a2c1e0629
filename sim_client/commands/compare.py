"""`sim-client compare DIR DIR …`: which policy is better, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sim_client.errors import InvalidOption, RecordsError
from sim_client.files import replacing
from sim_client.results.comparison import Comparison, compare
from sim_client.results.comparison.page import markdown, sections
from sim_client.results.comparison.plain import comparison_json

__all__ = ["compare_command"]


def compare_command(
    directories: Annotated[
        list[Path] | None, typer.Argument(help="Results directories of one task, two or more.", metavar="DIR DIR…")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the comparison as Markdown too.", metavar="FILE.md")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Tell whether one policy is better than another: the difference, its interval, an exact test.

    Episodes of the same seed are set against each other. Of more than two runs every pair is tested, with Holm's
    correction. What else than the policy differs between the runs is said.
    """
    if out is not None and out.suffix != ".md":
        raise InvalidOption(f"--out must end in .md, not {out.name!r}. Pass --out {out}.md.", field="--out")
    comparison = compare(directories or ())
    if out is not None:
        _write(out, markdown(comparison))
    if as_json:
        print(json.dumps(comparison_json(comparison), indent=2))
    else:
        _show(comparison)
        if out is not None:
            print(f"Markdown: {out}")


def _write(path: Path, text: str) -> None:
    try:
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordsError(f"--out {path} cannot be written: {error.strerror or error}.") from error


def _show(comparison: Comparison) -> None:
    """The result stands last, where the eye is when the command ends."""
    # A file or a pipe has no width to fit into.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=1000)
    for section in sections(comparison):
        table = Table(*section.header, title=section.title, title_justify="left", box=None, pad_edge=False)
        for row in section.rows:
            table.add_row(*row)
        console.print(table)
        if section.note:
            console.print(section.note, style="dim", soft_wrap=True)
        console.print()
    for warning in comparison.warnings:
        console.print(f"Note: {warning}", style="yellow", soft_wrap=True)
    console.print(comparison.sentence, style="bold", soft_wrap=True)
