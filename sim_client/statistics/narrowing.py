"""How many more episodes it takes to be surer."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["more_episodes"]


def more_episodes(width: Callable[[int], float], now: int, target: float) -> int:
    """The fewest further episodes after which an interval is no wider than `target`; 0 if it is so already.

    Args:
        width: of the interval after so many episodes, if things go on as they are; falls towards 0.
        now: episodes so far, at least 1.
        target: above 0, in the unit of `width`.
    """
    if width(now) <= target:
        return 0
    too_few, enough = now, 2 * now
    while width(enough) > target:
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if width(middle) <= target:
            enough = middle
        else:
            too_few = middle
    return enough - now
