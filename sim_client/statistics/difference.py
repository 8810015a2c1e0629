"""What is asked of a difference between two success rates, however it was measured."""

from __future__ import annotations

from typing import Protocol

from sim_client.statistics.rate import Rate

__all__ = ["Difference"]


class Difference(Protocol):
    """Rate of the second policy minus that of the first, as shares from -1 to 1."""

    @property
    def first(self) -> Rate:
        """Of the first policy, over the episodes that are compared."""
        ...

    @property
    def second(self) -> Rate:
        """Of the second policy."""
        ...

    @property
    def value(self) -> float | None:
        """The difference, None without episodes."""
        ...

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval; (-1, 1) without episodes."""
        ...

    @property
    def p_value(self) -> float:
        """Two-sided, exact: how often chance alone puts two equal policies this far apart. 1 without episodes."""
        ...

    def more_episodes(self, half_width: float) -> int | None:
        """See `narrowing.more_episodes`; None without episodes."""
        ...
