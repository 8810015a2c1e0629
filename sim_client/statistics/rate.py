"""A success rate and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

__all__ = ["CONFIDENCE", "Rate"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rate:
    """k successes in n independent episodes of a number fixed in advance.

    Raises:
        ValueError: not 0 <= successes <= episodes.
    """

    successes: int
    episodes: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.episodes:
            raise ValueError(f"{self.successes} successes in {self.episodes} episodes are impossible.")

    @property
    def value(self) -> float | None:
        """The share of successes, None without episodes."""
        return self.successes / self.episodes if self.episodes else None

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson score interval (Wilson 1927); (0, 1) without episodes, when nothing is known."""
        return _wilson(self.successes, self.episodes) if self.episodes else (0.0, 1.0)

    def __str__(self) -> str:
        """`7/20 = 35% [18%, 57%]`."""
        if self.value is None:
            return "0/0"
        low, high = self.interval
        return f"{self.successes}/{self.episodes} = {self.value:.0%} [{low:.0%}, {high:.0%}]"


@lru_cache(maxsize=10_000)
def _wilson(successes: int, episodes: int) -> tuple[float, float]:
    from scipy.stats import binomtest  # 0.6 s that `--help` need not wait for

    bounds = binomtest(successes, episodes).proportion_ci(CONFIDENCE, method="wilson")
    return float(bounds.low), float(bounds.high)
