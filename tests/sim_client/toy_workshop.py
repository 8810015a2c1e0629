"""A workshop that squares numbers, in which jobs may meet a fate."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sim_client.crew.workshop import Finished, Lost, Made, Ready
from sim_client.errors import SimulationError

__all__ = ["Jobs", "Squares"]


@dataclass(frozen=True)
class Squares:
    """Squares numbers. A job with a marker file in `folder` meets its fate once, and removes the marker."""

    folder: Path

    def open(self, tell):
        if (self.folder / "broken").exists():
            raise SimulationError("The tools are broken.")
        return _SquareBench(self.folder, tell)


@dataclass(frozen=True)
class _SquareBench:
    folder: Path
    tell: object
    facts: str = "a table of squares"

    def work(self, number: int) -> Iterator[int]:
        self.tell(f"at {number}", patience_s=1.0)
        marker = self.folder / f"fate_{number}"
        if marker.exists():
            fate = marker.read_text()
            if not fate.endswith("always"):
                marker.unlink()
            self._meet(fate.split()[0])
        yield number * number

    def _meet(self, fate: str) -> None:
        if fate == "raise":
            print("ValueError: it is odd", flush=True)
            raise ValueError("it is odd")
        if fate == "half_a_message":
            os.write(self.tell._connection.fileno(), struct.pack("!i", 1000) + b"half")
            fate = "SIGSTOP"
        os.kill(os.getpid(), getattr(signal, fate))
        time.sleep(60)

    def close(self) -> None:
        pass


class Jobs:
    """Numbers to square; lost ones come back."""

    def __init__(self, *numbers: int) -> None:
        self.waiting = list(numbers)
        self.squares: dict[int, int] = {}
        self.lost: list[tuple[int | None, str]] = []
        self.facts: list[str] = []

    def take(self) -> int | None:
        return self.waiting.pop(0) if self.waiting else None

    def run(self, crew, on_note=lambda worker, note: None):
        try:
            for event in crew.run(self.take, on_note):
                if isinstance(event, Ready):
                    self.facts.append(event.facts)
                elif isinstance(event, Made):
                    assert event.job not in self.squares
                    self.squares[event.job] = event.result
                elif isinstance(event, Finished):
                    assert event.job in self.squares
                else:
                    assert isinstance(event, Lost)
                    self.lost.append((event.job, event.reason))
                    self.waiting[:0] = [] if event.job is None else [event.job]
        finally:
            crew.stop()
        return self
