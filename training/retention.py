"""Which of a run's steps stay on disk: the last ones, the best by validation loss, and every so many for good."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["VALIDATION_FILE", "Retention", "best_step", "kept_steps"]

VALIDATION_FILE = "validation.jsonl"
"""In the run's folder: what was measured on held-out episodes, one line a validation."""


@dataclass(frozen=True)
class Retention:
    """orbax's preservation policy of a run; asked at each save, so the best is the best so far, also after a resume."""

    directory: Path
    """The run's folder."""
    last: int
    """How many of the latest steps stay."""
    every: int | None = None
    """Steps between those that stay for good; None for none."""

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Called by orbax with every step on disk, oldest first."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = kept_steps(steps, validation_losses(self.directory), self.last, self.every)
        return [step in kept for step in steps]


def kept_steps(steps: Sequence[int], losses: Mapping[int, float], last: int, every: int | None) -> set[int]:
    """Which of the steps on disk stay, ascending; directory N holds the state after N + 1 updates."""
    kept = set(steps[-last:])
    if every is not None:
        kept |= {step for step in steps if (step + 1) % every == 0}
    best = best_step(steps, losses)
    return kept if best is None else kept | {best}


def best_step(steps: Collection[int], losses: Mapping[int, float]) -> int | None:
    """The step of the lowest validation loss, the later of equal ones; None where none was validated."""
    known = [step for step in steps if math.isfinite(losses.get(step, math.nan))]
    return min(known, key=lambda step: (losses[step], -step), default=None)


def validation_losses(directory: Path) -> dict[int, float]:
    """By step, from the run's file; a line that a kill cut short says nothing."""
    path = directory / VALIDATION_FILE
    if not path.exists():
        return {}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    records = [json.loads(line) for line in lines]
    return {record["step"]: record["loss"] for record in records}
