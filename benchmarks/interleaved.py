"""Times several ways of doing one thing against each other in one run: A B C A B C …, so that noise hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

__all__ = ["interleaved"]


def interleaved(
    ways: Mapping[str, Callable[[], object]], rounds: int = 5, calls: int = 3
) -> dict[str, Float[np.ndarray, "samples"]]:
    """Seconds of each call, after one unmeasured round that compiles and warms up.

    Args:
        ways: name -> what to call; it must return only when the result is there.
        rounds: how often the whole row is run.
        calls: calls of one way in a round.
    """
    for call in ways.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            for _ in range(calls):
                begun = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - begun)
    return {name: np.array(each) for name, each in seconds.items()}
