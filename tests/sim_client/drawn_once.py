"""Spares tests of many runs the pictures of every run's page: half of their time, and looked at elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from sim_client.episode.record import EpisodeRecord
from sim_client.results.report import html
from sim_client.results.run_record import RunRecord
from sim_client.results.summary import Summary

__all__ = ["plots_drawn_once"]

_draw = html._plots
_drawn: dict[bool, dict[str, str]] = {}


def plots_drawn_once(run: RunRecord, records: Sequence[EpisodeRecord], summary: Summary) -> dict[str, str]:
    """Stands in for `html._plots`: the real pictures of the first run with a verdict, and of the first without one."""
    scored = any(record.outcome != "error" for record in records)
    if scored not in _drawn:
        _drawn[scored] = _draw(run, records, summary)
    return _drawn[scored]
