"""Ctrl-C and SIGTERM while training: finish the step, save, end."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from training.parallel.processes import EndedTogether

__all__ = ["StopSignal", "Stopped"]


class Stopped(EndedTogether):
    """A signal, to this process or another of the run, ended the run after it saved."""

    code = "stopped"

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopSignal:
    """Remembers the first SIGINT or SIGTERM; the second raises `KeyboardInterrupt` where it meets the program."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
