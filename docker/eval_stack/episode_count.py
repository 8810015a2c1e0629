"""How many episodes are finished, for a bar. Rates are sim-client's to tell."""

from __future__ import annotations

import json
from pathlib import Path

from eval_stack.matrix import Matrix

__all__ = ["EpisodeCount"]


class EpisodeCount:
    """Counts the seeds that have a verdict in `<out>/<checkpoint>/<task>/episodes.jsonl`."""

    def __init__(self, matrix: Matrix) -> None:
        self._seeds = range(matrix.seed, matrix.seed + matrix.episodes)
        self._files = [
            matrix.out / checkpoint.name / task / "episodes.jsonl"
            for checkpoint in matrix.checkpoints
            for task in matrix.tasks
        ]
        self._counts: dict[Path, tuple[int, int]] = {}

    def __call__(self) -> int:
        """Episodes of the matrix that are finished by now."""
        return sum(self._count(file) for file in self._files)

    def _count(self, file: Path) -> int:
        try:
            size = file.stat().st_size
            if self._counts.get(file, (-1, 0))[0] != size:
                self._counts[file] = size, len(self._finished(file.read_bytes()))
        except OSError:
            return 0
        return self._counts[file][1]

    def _finished(self, content: bytes) -> set[int]:
        seeds = set()
        for line in content.split(b"\n")[:-1]:  # the last may be half written
            try:
                record = json.loads(line)
                if record["outcome"] != "error" and record["seed"] in self._seeds:
                    seeds.add(record["seed"])
            except (ValueError, KeyError, TypeError):
                continue
        return seeds
