"""What sim-client says of the results, asked in containers of its own image: nothing is computed here."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval_stack.checkpoint import Checkpoint
from eval_stack.container_plan import ContainerPlan
from eval_stack.errors import ReportFailed
from eval_stack.plan import Plan
from eval_stack.running import Running

__all__ = ["Measured", "Results", "read_results"]

_POLL_S = 0.2


@dataclass(frozen=True)
class Measured:
    """One checkpoint on one task."""

    checkpoint: Checkpoint
    task: str
    summary: Mapping[str, Any]
    """What `sim-client report --json` prints; empty where there is no result."""
    problem: str = ""
    """Why there is no result."""


@dataclass(frozen=True)
class Results:
    """The whole matrix."""

    rows: tuple[Measured, ...]
    comparison: Mapping[str, Any]
    """What `sim-client compare --json` prints; empty where fewer than two checkpoints have results."""
    not_compared: str = ""
    """Why the comparison failed."""

    @property
    def whole(self) -> bool:
        """Whether there is something to say of every checkpoint on every task, and of all together."""
        return all(row.summary for row in self.rows) and not self.not_compared


def read_results(plan: Plan, running: Running) -> Results:
    """Have every report written again, and the checkpoints compared."""
    pairs = [(checkpoint, task) for checkpoint in plan.matrix.checkpoints for task in plan.matrix.tasks]
    rows = tuple(_measured(plan, running, checkpoint, task) for checkpoint, task in pairs)
    with_results = list(dict.fromkeys(row.checkpoint for row in rows if row.summary))
    if len(with_results) < 2:
        return Results(rows, {})
    try:
        return Results(rows, _ask(plan.comparison(with_results), running))
    except ReportFailed as error:
        return Results(rows, {}, error.message)


def _measured(plan: Plan, running: Running, checkpoint: Checkpoint, task: str) -> Measured:
    if not (plan.matrix.out / checkpoint.name / task / "run.json").exists():
        return Measured(checkpoint, task, {}, "no episode was run")
    try:
        return Measured(checkpoint, task, _ask(plan.report_of(checkpoint, task), running))
    except ReportFailed as error:
        return Measured(checkpoint, task, {}, error.message)


def _ask(plan: ContainerPlan, running: Running) -> Mapping[str, Any]:
    """Raises `ReportFailed`: the container failed, or printed no JSON."""
    container = running.container(plan)
    while (code := container.exit_code) is None:
        time.sleep(_POLL_S)
    container.log.join()
    output = container.output()
    running.stop()
    try:
        if code == 0:
            return dict(json.loads(output))
        said = container.log.last[-1] if container.log.last else "it said nothing"
    except ValueError:
        said = "it printed no JSON"
    raise ReportFailed(f"{plan.command} ended with code {code}: {said}")
