"""Names of what lies in a results directory."""

from __future__ import annotations

__all__ = ["EPISODES", "PAGE", "REPORT", "RUN"]

RUN, EPISODES = "run.json", "episodes.jsonl"
REPORT, PAGE = "report.md", "report.html"
