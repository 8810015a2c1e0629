"""Which seeds make the collection: the first N successes in seed order, whoever finishes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from itertools import count

from sim_client.errors import CollectionError

__all__ = ["chosen_seeds", "next_seed", "require_hope"]

MIN_SUCCESS = 0.05
"""Below this share of successes the planner is taken not to solve the task as it is set up."""

ENOUGH_ATTEMPTS = 40
"""Finished seeds before that is judged: at a true rate of 0.2 bad luck stops fewer than 1 in 500 collections here."""


def next_seed(outcomes: Mapping[int, str | None], busy: Set[int], first: int, wanted: int) -> int | None:
    """The lowest seed that is neither finished nor in flight and may still be needed; None when there is none.

    Args:
        outcomes: finished seeds; None for a demonstration, else the reason why there is none.
        busy: seeds in flight.
        first: where the seeds begin.
        wanted: demonstrations to keep.
    """
    kept = 0
    for seed in count(first):
        if kept == wanted:
            return None
        if seed not in outcomes and seed not in busy:
            return seed
        kept += seed in outcomes and outcomes[seed] is None
    raise AssertionError("seeds do not end")


def chosen_seeds(outcomes: Mapping[int, str | None], first: int, wanted: int) -> tuple[int, ...] | None:
    """The first `wanted` seeds with a demonstration, or None while a lower seed is unfinished."""
    kept: list[int] = []
    for seed in count(first):
        if len(kept) == wanted:
            return tuple(kept)
        if seed not in outcomes:
            return None
        if outcomes[seed] is None:
            kept.append(seed)
    raise AssertionError("seeds do not end")


def require_hope(outcomes: Mapping[int, str | None], env_id: str) -> None:
    """Stop a collection that would never end.

    Raises:
        CollectionError: hardly any seed gives a demonstration; names the most frequent reason.
    """
    reasons = Counter(reason for reason in outcomes.values() if reason is not None)
    kept = len(outcomes) - reasons.total()
    if len(outcomes) < ENOUGH_ATTEMPTS or kept >= MIN_SUCCESS * len(outcomes):
        return
    reason, times = reasons.most_common(1)[0]
    raise CollectionError(
        f"Only {kept} of {len(outcomes)} seeds of {env_id} gave a demonstration; {times} failed because {reason}. "
        "Pass other frequencies (--sim-freq 100 --control-freq 20 are known to work), or another --seed."
    )
