"""How far the collection is: a bar on a terminal, a line per finished seed elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["CollectionProgress"]


class CollectionProgress:
    """Tells kept, tried and failed seeds and the time that is left, while it is entered.

    Args:
        console: where to.
        env_id: the task, for the label.
        wanted: demonstrations to keep.
        kept: demonstrations that an earlier run left.
        failed: seeds without one that an earlier run left.
    """

    def __init__(self, console: Console, env_id: str, wanted: int, kept: int, failed: int) -> None:
        self._console, self._wanted, self._began_with = console, wanted, kept
        self._kept, self._failed = kept, failed
        self._start = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=12), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[detail]}"), console=console)
        self._row = self._bar.add_task(env_id, total=wanted, completed=kept, detail="")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.update(self._row, detail="starting the simulator")
            self._bar.start()
        else:
            self._console.out(f"{self._kept}/{self._wanted} demonstrations; starting the simulator")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def finished(self, seed: int, reason: str | None) -> None:
        """Count one seed: None for a demonstration, else why there is none."""
        self._kept += reason is None
        self._failed += reason is not None
        detail = f"{self._kept + self._failed} tried, {self._failed} failed, {self._left()}"
        if self._console.is_terminal:
            self._bar.update(self._row, completed=min(self._kept, self._wanted), detail=detail)
        else:
            outcome = "kept" if reason is None else f"failed: {reason}"
            kept = min(self._kept, self._wanted)
            self._console.out(f"{kept}/{self._wanted} demonstrations; seed {seed} {outcome}; {detail}")

    def _left(self) -> str:
        gained = self._kept - self._began_with
        if self._kept >= self._wanted:
            return "writing the file"
        if gained == 0:
            return "time left unknown"
        seconds = (time.monotonic() - self._start) / gained * (self._wanted - self._kept)
        return f"about {int(seconds // 60)}:{int(seconds % 60):02d} left"
