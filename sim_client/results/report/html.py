"""`report.html`: a run in one page that holds everything it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from sim_client.episode.record import EpisodeRecord, Outcome
from sim_client.results.report.caveats import caveats
from sim_client.results.report.drift_plots import dimension_plot, episode_drift_plot
from sim_client.results.report.page import render
from sim_client.results.report.rate_plots import outcome_plot, stage_plot, success_plot
from sim_client.results.report.time_plots import latency_plot, length_plot, wall_plot
from sim_client.results.report.videos import MAX_THUMBNAILS, find_videos
from sim_client.results.report.wording import (
    OUTCOMES,
    chunk_line,
    clock_line,
    headline,
    outside_by_dimension,
    repetition,
    shown_rates,
    stage_rates,
    throughput_line,
    wall_parts,
)
from sim_client.results.run_record import RunRecord
from sim_client.results.summary import Summary

__all__ = ["html"]

_MARKS = {"q50": "median demonstration", "q95": "95% of demonstrations", "max": "longest demonstration"}


def html(directory: Path, run: RunRecord, records: Sequence[EpisodeRecord], summary: Summary) -> str:
    """The page.

    Args:
        directory: of the run; videos in it are linked to.
    """
    return render(
        "report.html.j2",
        run=run,
        records=records,
        summary=summary,
        headline=headline(run, summary),
        caveats=caveats(run, records, summary),
        rates=shown_rates(run, summary),
        outcomes=OUTCOMES,
        stages=stage_rates(summary),
        throughput=throughput_line(summary),
        chunk_use=chunk_line(run),
        clock=clock_line(summary),
        seconds=_seconds(summary),
        trained={camera.key: camera for camera in run.spec.observation.cameras},
        videos=find_videos(directory, records),
        max_thumbnails=MAX_THUMBNAILS,
        repetition=repetition(run),
        plots=_plots(run, records, summary),
    )


def _plots(run: RunRecord, records: Sequence[EpisodeRecord], summary: Summary) -> dict[str, str]:
    """Name -> SVG of every picture for which something was measured."""
    scored = [record for record in records if record.outcome != "error"]
    plots = {"success": success_plot("success", shown_rates(run, summary))}
    if records:
        plots["outcomes"] = outcome_plot(summary.outcomes)
    if scored:
        plots["stages"] = stage_plot(stage_rates(summary))
        plots["lengths"] = length_plot(_lengths(scored), _marks(run))
    if summary.round_trip.requests or summary.infer.requests:
        plots["latency"] = latency_plot(_milliseconds(scored))
    if any(seconds for _, seconds in _seconds(summary).values()):
        plots["wall"] = wall_plot(_seconds(summary))
    drifted = [record for record in scored if record.state_outside_share is not None]
    if drifted:
        plots["drift"] = episode_drift_plot(drifted)
    if by_dimension := outside_by_dimension(run, summary):
        plots["dimensions"] = dimension_plot(by_dimension)
    return plots


def _lengths(scored: Sequence[EpisodeRecord]) -> dict[str, list[int]]:
    return {kind: [record.steps for record in scored if record.outcome == kind] for kind in get_args(Outcome)}


def _marks(run: RunRecord) -> dict[str, float]:
    known = run.spec.simulation.demonstration_length if run.spec.simulation else {}
    marks = {label: known[name] for name, label in _MARKS.items() if name in known}
    return {**marks, "limit": run.settings.max_episode_steps}


def _milliseconds(scored: Sequence[EpisodeRecord]) -> dict[str, list[float]]:
    return {
        "round trip": [value for record in scored for value in record.round_trip_ms],
        "inference": [value for record in scored for value in record.infer_ms],
    }


def _seconds(summary: Summary) -> dict[str, tuple[str, float]]:
    """Part of all wall time -> its colour, and its seconds."""
    return {**wall_parts(summary), "lost in void attempts": ("error", summary.lost_s)}
