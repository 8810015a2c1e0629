"""`lerobot` in a process of its own environment, for it pins libraries that this project's does not have."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Int64

__all__ = ["Lerobot", "open_lerobot"]


@dataclass(frozen=True)
class Lerobot:
    """A dataset that lerobot has open."""

    version: str
    questions: IO[str]
    answers: IO[str]

    def load(self, rows: Int64[np.ndarray, "batch"]) -> tuple[float, float, float]:
        """Load samples there: seconds of the processor that it took, and, to show that they are the right ones, the sum
        of their actions and the mean of their first camera."""
        print(*rows.tolist(), file=self.questions, flush=True)
        seconds, actions, image = map(float, self.answers.readline().split())
        return seconds, actions, image


@contextmanager
def open_lerobot(python: str, root: Path, horizon: int) -> Iterator[Lerobot]:
    """Open a dataset with the lerobot of another Python."""
    script = Path(__file__).with_name("loader_lerobot.py")
    command = [python, str(script), str(root), str(horizon)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=offline
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        if ready[:1] != ["ready"]:
            raise SystemExit(
                f"--peer-python {python} cannot open {root} with lerobot. lerobot before 0.4 reads v2.1 alone: pass "
                f"--format v2.1. See for yourself: {' '.join(command)}"
            )
        yield Lerobot(ready[1], process.stdin, process.stdout)
        process.stdin.close()
