"""What a training run shows while it runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["TrainingProgress"]

_SPEED_SECONDS = 3600
"""The time left is reckoned from the steps of so long. rich looks at 30 s: less than lies between two logged steps of a
large model, and then it knows no speed at all."""


class TrainingProgress:
    """Shows step, loss, step time, share of waiting and the time left, from the second logged step on.

    Args:
        name: of the experiment.
        first: step that the run begins or goes on with.
        steps: of the whole run.
        clock: seconds that pass.
    """

    def __init__(self, name: str, first: int, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._live = Progress(
            TextColumn(name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
            speed_estimate_period=_SPEED_SECONDS,
            get_time=clock,
        )
        self._steps = steps
        self._task = self._live.add_task(name, total=steps, completed=first, text="compiling the first step …")
        if self._live.disable:
            print(f"{name}: from step {first} to {steps}; compiling the first step", file=sys.stderr, flush=True)

    def __enter__(self) -> TrainingProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, record: Mapping[str, float]) -> None:
        """Update with a line of `metrics.jsonl`."""
        text = (
            f"loss {record['loss']:.4f}  grad {record['grad_norm']:.2f}  {record['step_seconds']:.2f} s/step  "
            f"waiting for data {record['data_wait_share']:.0%}"
        )
        done = int(record["step"]) + 1
        self._live.update(self._task, completed=done, text=text)
        if self._live.disable:
            print(f"step {done}/{self._steps}  {text}{self._left()}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._live.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self._live.console.print(text)

    def _left(self) -> str:
        (task,) = self._live.tasks
        return "" if task.time_remaining is None else f"  {timedelta(seconds=task.time_remaining)} left"
