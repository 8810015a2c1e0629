"""A crew of which some die, in every order of events, and that the user stops now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sim_client.crew.workshop import Event, Finished, Lost, Made, OnNote, Ready, Workshop

__all__ = ["Fate", "FatedCrew"]


@dataclass
class Fate:
    """Decides which worker moves next, and what happens to it."""

    draw: Callable[[int], int]

    def hire(self, workshop: Workshop, leases: int, logs: Path, retries: int) -> FatedCrew:
        return FatedCrew(workshop, 1 + self.draw(4), self.draw)

    num_envs: int = 1


class FatedCrew:
    """Workers that take jobs at the same time and finish them in any order; some die, and sometimes the user stops."""

    def __init__(self, workshop: Workshop, size: int, draw: Callable[[int], int]) -> None:
        self._benches = [workshop.open(lambda note=None, patience_s=None: None) for _ in range(size)]
        self._draw = draw

    def run(self, take: Callable[[], object], on_note: OnNote) -> Iterator[Event]:
        yield from (Ready(number, bench.facts) for number, bench in enumerate(self._benches))
        jobs: dict[int, object] = {}
        while True:
            for number in range(len(self._benches)):
                if number not in jobs and (job := take()) is not None:
                    jobs[number] = job
            if not jobs:
                return
            yield from self._next(jobs)

    def _next(self, jobs: dict[int, object]) -> Iterator[Event]:
        number = sorted(jobs)[self._draw(len(jobs))]
        job, fate = jobs.pop(number), self._draw(12)
        if fate == 0:
            raise KeyboardInterrupt
        if fate <= 2:
            yield Lost(number, job, "fate")
            return
        for result in self._benches[number].work(job):
            yield Made(number, job, result)
            if fate == 3:
                yield Lost(number, job, "fate, with a result already told")
                return
        yield Finished(number, job)

    def stop(self) -> None:
        for bench in self._benches:
            bench.close()
