"""The training loss of a run, from the `metrics.jsonl` that training writes into the run's folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TrainingLoss"]

_MEAN_OF = 10
"""Logged lines: one is the loss of a single batch, which jumps."""


@dataclass(frozen=True)
class TrainingLoss:
    """What was logged, or why nothing of it is known here."""

    points: tuple[tuple[int, float], ...] = ()
    """(step, loss) of each logged line, ascending."""
    absent: str = ""
    """A sentence where there are no points."""

    @classmethod
    def read(cls, run: Path, run_id: str = "") -> TrainingLoss:
        """Read the folder of a training run. What is missing or damaged is told in `absent`: nothing hangs on it.

        Args:
            run_id: of the policy that is measured; a folder of another run is not read.
        """
        path = run / "metrics.jsonl"
        here = _run_id(run)
        if run_id and here and here != run_id:
            return cls(
                absent=f"No training loss: {run} is another run (id {here}) than the one that is served ({run_id})."
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text file"
            return cls(absent=f"No training loss: {path} cannot be read here ({reason}).")
        points = tuple(sorted(_points(text)))
        return cls(points, "" if points else f"No training loss: {path} holds none.")

    def at(self, step: int) -> float | None:
        """Mean of the last ten logged losses up to `step`; None when none is known."""
        until = [loss for logged, loss in self.points if logged <= step][-_MEAN_OF:]
        return sum(until) / len(until) if until else None


def _run_id(run: Path) -> str:
    try:
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(facts.get("run_id", "")) if isinstance(facts, dict) else ""


def _points(text: str) -> Iterator[tuple[int, float]]:
    """Lines that are none, such as the last one of a run that was killed, are passed over."""
    for line in text.splitlines():
        try:
            record = json.loads(line)
            step, loss = int(record["step"]), float(record["loss"])
        except (ValueError, KeyError, TypeError):
            continue
        if math.isfinite(loss):
            yield step, loss
