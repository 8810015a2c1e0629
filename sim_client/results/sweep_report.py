"""`sweep.md` and `sweep.html`: success of every checkpoint of a training run beside the training loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sim_client.results.report import html_path
from sim_client.results.report.markdown import table
from sim_client.results.report.page import render
from sim_client.results.report.write import write_files
from sim_client.results.summary import HEADLINE
from sim_client.results.sweep_curve import SweepCurve, SweepPoint

__all__ = ["HEADER", "row_of", "sweep_json", "write_sweep_report"]

HEADER = ("step", HEADLINE, "success_at_end", "training loss", "errors")
"""Of the table of steps."""


def row_of(point: SweepPoint) -> tuple[str, ...]:
    """The cells of one step, under `HEADER`."""
    summary = point.run.summary
    loss = "-" if point.loss is None else f"{point.loss:.4g}"
    return (str(point.step), str(point.success), str(summary.success_at_end), loss, str(summary.outcomes["error"]))


def write_sweep_report(folder: Path, curve: SweepCurve, unfinished: Mapping[str, str]) -> None:
    """Write `sweep.md` and `sweep.html` into the folder that the steps' directories lie in.

    Args:
        unfinished: step -> why it has no result, or no whole one, beside what `curve.warnings` say.

    Raises:
        RecordsError: a file cannot be written.
    """
    from sim_client.results.sweep_plot import sweep_plot

    page = render(
        "sweep.html.j2",
        curve=curve,
        header=HEADER,
        rows=[(_link(point), row_of(point), point.run.summary) for point in curve.points],
        unfinished=unfinished,
        plots={"sweep": sweep_plot(curve)},
    )
    write_files(
        {folder / "sweep.md": _markdown(curve, unfinished), folder / "sweep.html": page},
        "the same command writes it and repeats no episode",
    )


def sweep_json(curve: SweepCurve, unfinished: Mapping[str, str]) -> dict[str, Any]:
    """What `sim-client sweep --json` prints."""
    best = curve.best
    return {
        "env_id": curve.env_id,
        "headline": HEADLINE,
        "result": curve.sentence,
        "note": curve.note,
        "best": None if best is None else best.step,
        "last": curve.last.step,
        "best_against_last": _verdict(curve),
        "warnings": list(curve.warnings),
        "steps": [
            {
                "step": point.step,
                "checkpoint": point.run.run.checkpoint,
                "directory": str(point.run.directory),
                "training_loss": point.loss,
                **point.run.summary.to_json(),
            }
            for point in curve.points
        ],
        "unfinished": dict(unfinished),
    }


def _verdict(curve: SweepCurve) -> dict[str, Any] | None:
    verdict = curve.verdict
    if verdict is None:
        return None
    low, high = verdict.difference.interval
    return {
        "paired": verdict.pair.paired,
        "difference": verdict.difference.value,
        "interval_95": [round(low, 4), round(high, 4)],
        "p_value": verdict.difference.p_value,
        "p_value_holm": verdict.p_adjusted,
        "told_apart": verdict.told_apart,
    }


def _markdown(curve: SweepCurve, unfinished: Mapping[str, str]) -> str:
    lines = [f"# {curve.env_id}: {curve.sentence}", ""]
    for text in (curve.note, *curve.warnings):
        lines += [f"> {text}", ">"] if text else []
    if unfinished:
        lines += ["", "Without a result, or without a whole one:", "", *table(("step", "why"), unfinished.items())]
    rows = ((*row_of(point), f"[report]({_link(point)})") for point in curve.points)
    lines += ["", *table((*HEADER, "report"), rows), ""]
    lines.append(
        "Rates are k/n = share [95% interval, Wilson's where nothing else is said] over the episodes that did not end "
        "in an error. The loss is the mean of the last ten logged up to the step."
    )
    return "\n".join(lines) + "\n"


def _link(point: SweepPoint) -> str:
    """URL of the step's own report, from the folder of the sweep."""
    return quote(f"{point.step}/{html_path(point.run.directory).name}")
