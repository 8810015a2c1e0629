"""One run of one side of `evaluation.py`: a process that writes a JSON line an episode, and the clock beside it."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Burst", "Side", "burst"]

_HERE = Path(__file__).parent
_LONGEST_S, _LOOK_S = 900.0, 0.02


@dataclass(frozen=True)
class Side:
    """A way to evaluate."""

    name: str
    command: tuple[object, ...]
    """The word LINES stands for the file that gets a JSON line for each episode; for `sim-client`, OUT for a folder."""
    episodes: int


@dataclass(frozen=True)
class Burst:
    """One run of a side."""

    lines: tuple[dict[str, Any], ...]
    """A record for each episode."""
    working_s: float
    """From the begin of the first episode to the end of the last."""
    loading_s: float
    """From the start of the process to that begin."""

    @property
    def per_minute(self) -> float:
        """Episodes."""
        return 60 * len(self.lines) / self.working_s

    def seconds(self, kind: str) -> float:
        """Of all episodes together: simulate, render, wait, total."""
        return float(sum(line["wall"][f"{kind}_s"] for line in self.lines))

    @property
    def steps(self) -> int:
        """Of all episodes together."""
        return sum(line["steps"] for line in self.lines)


def burst(side: Side) -> Burst:
    """Run a side once, looking at its lines as they come: their times are those of this process."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        lines = Path(folder) / "results/episodes.jsonl"
        lines.parent.mkdir()
        words = [str({"LINES": lines, "OUT": lines.parent}.get(str(word), word)) for word in side.command]
        started = time.perf_counter()
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=_HERE)
        try:
            ended = _watch(process, lines)
        finally:
            process.kill()
            process.wait()
        records = [json.loads(line) for line in _lines_of(lines)]
        if len(records) != side.episodes:
            log.seek(0)
            raise SystemExit(f"{side.name}: {len(records)} episodes\n{log.read().decode()[-3000:]}")
    begun = min(end - record["wall"]["total_s"] for end, record in zip(ended, records, strict=True))
    return Burst(tuple(records), max(ended) - begun, begun - started)


def _watch(process: subprocess.Popen[bytes], lines: Path) -> list[float]:
    """The moment of each line, until the process ends."""
    ended: list[float] = []
    deadline = time.perf_counter() + _LONGEST_S
    while True:
        over = process.poll() is not None
        ended += [time.perf_counter()] * (len(_lines_of(lines)) - len(ended))
        if over:
            return ended
        if time.perf_counter() > deadline:
            raise SystemExit(f"{process.args} is not done after {_LONGEST_S:.0f} s.")
        time.sleep(_LOOK_S)


def _lines_of(path: Path) -> list[str]:
    """Whole ones only."""
    return path.read_text().split("\n")[:-1] if path.exists() else []
