"""Which seeds a crew is at, and what became of each: a seed that a worker died at is tried once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sim_client.collect.parts import Parts
from sim_client.crew.workshop import Crew, Lost, Made, Ready
from sim_client.errors import CollectionError

__all__ = ["seeds_from"]


def seeds_from(
    crew: Crew, parts: Parts, next_seed: Callable[[frozenset[int]], int | None]
) -> Iterator[tuple[int, str | None]]:
    """Finished seeds, as they finish: None for a demonstration, else the reason why there is none.

    Args:
        parts: told what the simulator says of itself.
        next_seed: the seed to try next, given those in flight; None when there is nothing more to start. It offers a
            seed again whose worker died.

    Raises:
        ChunkwireError: the simulator cannot be set up, a file not be written, or the workers die whatever they do.
    """
    busy: set[int] = set()
    crashed: set[int] = set()

    def take() -> int | None:
        seed = next_seed(frozenset(busy))
        if seed is not None:
            busy.add(seed)
        return seed

    for event in crew.run(take):
        if isinstance(event, Ready):
            parts.description = event.facts
            continue
        if isinstance(event, Made):
            if isinstance(event.result, CollectionError):
                raise event.result
            yield event.job, event.result
            continue
        busy.discard(event.job)
        if isinstance(event, Lost) and event.job in crashed:
            yield event.job, f"it failed two workers, the second time because {event.reason}"
        elif isinstance(event, Lost) and event.job is not None:
            crashed.add(event.job)
