"""`report.md`: the matrix as one table, what the comparison says, and links to everything."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import quote

from eval_stack.checkpoint import Checkpoint
from eval_stack.errors import OutputUnwritable
from eval_stack.matrix import Matrix
from eval_stack.results import Measured, Results

__all__ = ["index", "write_index"]


def write_index(matrix: Matrix, results: Results, failed: Mapping[str, str]) -> Path:
    """Write `<out>/report.md`.

    Args:
        failed: checkpoint -> why it was not measured to the end.

    Raises:
        OutputUnwritable: it cannot be written.
    """
    path = matrix.out / "report.md"
    try:
        with NamedTemporaryFile("w", encoding="utf-8", dir=matrix.out, delete=False) as draft:
            draft.write(index(matrix, results, failed))
        Path(draft.name).chmod(0o644)
        os.replace(draft.name, path)
    except OSError as error:
        raise OutputUnwritable(f"{path} cannot be written: {error.strerror}.") from error
    return path


def index(matrix: Matrix, results: Results, failed: Mapping[str, str]) -> str:
    """The text of `report.md`."""
    header = ("checkpoint", "task", "success_once", "success_at_end", "errors", "missing", "report")
    lines = [
        f"# {len(matrix.checkpoints)} x {len(matrix.tasks)}: checkpoints and tasks",
        "",
        f"Episodes of each task with each checkpoint: {matrix.episodes}, with the seeds from {matrix.seed} on.",
        "",
        *_table(header, map(_row, results.rows)),
        "",
        "Rates are k/n = share [95% interval], as each report has them.",
        "",
        *_comparison(results),
        *_failures(failed),
        "## Checkpoints",
        "",
        *_table(("name", "directory", "all its tasks"), (_checkpoint(matrix, one) for one in matrix.checkpoints)),
    ]
    return "\n".join(lines) + "\n"


def _row(row: Measured) -> tuple[object, ...]:
    if not row.summary:
        return row.checkpoint.name, row.task, row.problem, "-", "-", "-", "-"
    summary = row.summary
    link = quote(f"{row.checkpoint.name}/{row.task}/report.html")
    return (
        row.checkpoint.name,
        row.task,
        _rate(summary),
        summary["success_at_end"]["text"],
        summary["outcomes"]["error"],
        summary["missing"],
        f"[report]({link})",
    )


def _checkpoint(matrix: Matrix, checkpoint: Checkpoint) -> tuple[object, ...]:
    """With the page that sim-client writes of several tasks."""
    page = f"{checkpoint.name}/suite.html"
    link = f"[page]({quote(page)})" if (matrix.out / page).exists() else "-"
    return checkpoint.name, f"`{checkpoint.directory}`", link


def _rate(summary: Mapping[str, Any]) -> str:
    """With the interval that holds: that of a run which stops when it is sure is another one."""
    rate, anytime = summary["success_once"], summary["anytime_interval_95"]
    if anytime is None:
        return str(rate["text"])
    low, high = anytime
    return f"{rate['successes']}/{rate['episodes']}, anytime-valid [{low:.0%}, {high:.0%}]"


def _comparison(results: Results) -> Iterator[str]:
    said = results.comparison
    if said:
        yield from ("## Comparison", "")
        yield from (f"- {said[key]}" for key in ("result", "by_task") if said.get(key))
        yield from (f"- Note: {warning}" for warning in said["warnings"])
        yield from ("", "[The whole comparison](comparison.md), paired by seed, with Holm's correction.", "")
    elif results.not_compared:
        yield from ("## Comparison", "", f"The checkpoints were not compared: {results.not_compared}", "")


def _failures(failed: Mapping[str, str]) -> Iterator[str]:
    for name, reason in failed.items():
        yield from (f"## {name} was not measured to the end", "", "```", reason, "```", "")


def _table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    for row in (header, ("---",) * len(header), *rows):
        yield "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
