"""What a person sees while an evaluation runs: live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sim_client.episode.record import EpisodeRecord
from sim_client.statistics.rate import Rate

__all__ = ["Progress"]


class Progress:
    """Running rate, speed, waiting share, and what every worker is at; written to standard error.

    Args:
        planned: episodes of the whole run.
        finished: those of an earlier, interrupted run.
    """

    def __init__(self, planned: int, finished: Sequence[EpisodeRecord] = (), console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._planned = planned
        self._records: dict[int, EpisodeRecord] = {}
        self.seen(finished)
        self._resumed = len(self._records)
        self._started = time.monotonic()
        self._workers: dict[int, str] = {}
        self._live = Live(console=self._console, get_renderable=self._lines, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self._resumed:
            self.say(f"{self._resumed} of {self._planned} episodes are finished already; resuming.")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def step(self, worker: int, seed: int, step: int) -> None:
        """A worker's episode has done `step` steps."""
        self._workers[worker] = f"seed {seed}, step {step}"

    def lost(self, worker: int, reason: str) -> None:
        """A worker died and is replaced."""
        self._workers[worker] = "starting anew"
        self.say(f"Worker {worker + 1} is replaced: {reason}.")

    def seen(self, records: Iterable[EpisodeRecord]) -> None:
        """Count episodes of whatever process; one that is counted already, not again."""
        self._records |= {record.seed: record for record in records if record.outcome != "error"}

    def waits(self, seeds: Sequence[int]) -> None:
        """The episodes of `seeds`, at which other processes are, are all that is left."""
        self.say(f"Waiting for other processes, which are at the seeds {', '.join(map(str, seeds))}.")

    def finished(self, worker: int, record: EpisodeRecord) -> None:
        """A worker's episode has its record."""
        self.seen([record])
        self._workers[worker] = "between episodes"
        first = "" if record.first_success is None else f" (first at step {record.first_success})"
        standing = "" if self._console.is_terminal else f"  |  {self._standing()}"
        self.say(
            f"episode {record.index + 1}/{self._planned}  seed {record.seed}  {record.outcome}{first}  "
            f"{record.steps} steps  {record.wall.total_s:.1f} s{standing}"
        )

    def _standing(self) -> str:
        rate = Rate(sum(record.success_once for record in self._records.values()), len(self._records))
        return f"success_once {rate}  {self._speed()}"

    def _speed(self) -> str:
        minutes = (time.monotonic() - self._started) / 60
        new = list(self._records.values())[self._resumed :]
        total = sum(record.wall.total_s for record in new)
        if not new or not total:
            return "no speed yet"
        waiting = sum(record.wall.wait_s for record in new) / total
        left = (self._planned - len(self._records)) * minutes / len(new)
        return f"{len(new) / minutes:.1f} episodes/min, {waiting:.0%} of it waiting for the policy, {left:.0f} min left"

    def _lines(self) -> Group:
        lines = [f"{len(self._records)}/{self._planned} finished  {self._standing()}"]
        lines += [f"  worker {worker + 1}: {state}" for worker, state in sorted(self._workers.items())]
        return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))
