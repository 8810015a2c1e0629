"""`sim-client compare DIR DIR …`: which policy is better, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sim_client.errors import InvalidOption, RecordsError
from sim_client.files import replacing
from sim_client.results.comparison import compare, compare_suites
from sim_client.results.comparison.page import Section, markdown, sections
from sim_client.results.comparison.plain import comparison_json
from sim_client.results.comparison.suite import hold_suites
from sim_client.results.comparison.suite_page import suite_comparison_json, suite_markdown, suite_sections

__all__ = ["compare_command"]


def compare_command(
    directories: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Results directories of one task, or folders of several tasks' results; two or more.",
            metavar="DIR DIR…",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the comparison as Markdown too.", metavar="FILE.md")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Tell whether one policy is better than another: the difference, its interval, an exact test.

    Episodes of the same seed are set against each other. Folders of several tasks (`--env A,B,C`, `--suite`) are
    compared task by task and over all of them. Of more than two runs every pair is tested, with Holm's
    correction. What else than the policy differs between the runs is said.
    """
    if out is not None and out.suffix != ".md":
        raise InvalidOption(f"--out must end in .md, not {out.name!r}. Pass --out {out}.md.", field="--out")
    page = _suites(directories) if hold_suites(directories := directories or []) else _runs(directories)
    if out is not None:
        _write(out, page.markdown)
    if as_json:
        print(json.dumps(page.json, indent=2))
    else:
        _show(page)
        if out is not None:
            print(f"Markdown: {out}")


@dataclass(frozen=True)
class _Page:
    """A comparison in every form that is asked for."""

    sections: Iterable[Section]
    warnings: Iterable[str]
    result: tuple[str, ...]
    markdown: str
    json: dict[str, Any]


def _runs(directories: Sequence[Path]) -> _Page:
    comparison = compare(directories)
    return _Page(
        sections(comparison),
        comparison.warnings,
        (comparison.sentence,),
        markdown(comparison),
        comparison_json(comparison),
    )


def _suites(folders: Sequence[Path]) -> _Page:
    suite = compare_suites(folders)
    return _Page(
        suite_sections(suite),
        suite.warnings,
        (suite.by_task, suite.sentence),
        suite_markdown(suite),
        suite_comparison_json(suite),
    )


def _write(path: Path, text: str) -> None:
    try:
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordsError(f"--out {path} cannot be written: {error.strerror or error}.") from error


def _show(page: _Page) -> None:
    """The result stands last, where the eye is when the command ends."""
    # A file or a pipe has no width to fit into.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=1000)
    for section in page.sections:
        table = Table(*section.header, title=section.title, title_justify="left", box=None, pad_edge=False)
        for row in section.rows:
            table.add_row(*row)
        console.print(table)
        if section.note:
            console.print(section.note, style="dim", soft_wrap=True)
        console.print()
    for warning in page.warnings:
        console.print(f"Note: {warning}", style="yellow", soft_wrap=True)
    for sentence in page.result:
        console.print(sentence, style="bold", soft_wrap=True)
