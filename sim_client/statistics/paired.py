"""Two policies on the same episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from sim_client.statistics.narrowing import more_episodes
from sim_client.statistics.rate import CONFIDENCE, Rate

__all__ = ["PairedDifference"]

_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class PairedDifference:
    """Episodes by who succeeded: the first policy, the second, both or neither. Their number was fixed in advance.

    The interval is Tango's. Of the two that were tried, it and Newcombe's method 10 for pairs, it covers more in the
    worst case at 10 and 20 episodes (93% and 94%); and it never holds 0 where the exact McNemar test tells the
    policies apart.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @classmethod
    def of(cls, successes: Iterable[tuple[bool, bool]]) -> PairedDifference:
        """Count (first, second) of every episode."""
        count = Counter(successes)
        return cls(count[True, True], count[True, False], count[False, True], count[False, False])

    @property
    def episodes(self) -> int:
        """Pairs."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def first(self) -> Rate:
        """Of the first policy, over these episodes."""
        return Rate(self.both + self.only_first, self.episodes)

    @property
    def second(self) -> Rate:
        """Of the second policy, over these episodes."""
        return Rate(self.both + self.only_second, self.episodes)

    @property
    def value(self) -> float | None:
        """Second minus first, None without episodes."""
        return (self.only_second - self.only_first) / self.episodes if self.episodes else None

    @property
    def interval(self) -> tuple[float, float]:
        """95% score interval: Tango 1998, Statistics in Medicine 17:891; (-1, 1) without episodes."""
        if not self.episodes:
            return -1.0, 1.0
        return _tango(self.only_second, self.only_first, self.episodes)

    @property
    def p_value(self) -> float:
        """Exact McNemar test (McNemar 1947): of n that only one solved, each is a fair coin if the two are equal."""
        from scipy.stats import binomtest  # 0.6 s that `--help` need not wait for

        discordant = self.only_first + self.only_second
        return float(binomtest(self.only_first, discordant).pvalue) if discordant else 1.0

    def more_episodes(self, half_width: float) -> int | None:
        """Further pairs after which the interval is ± `half_width`, if their shares stay; None without episodes."""
        if not self.episodes:
            return None

        def width(episodes: int) -> float:
            grown = episodes / self.episodes
            low, high = _tango(grown * self.only_second, grown * self.only_first, episodes)
            return high - low

        return more_episodes(width, self.episodes, 2 * half_width)


def _tango(gained: float, lost: float, episodes: int) -> tuple[float, float]:
    """(low, high) of (gained - lost) / episodes."""
    return _lower(gained, lost, episodes), -_lower(lost, gained, episodes)


def _lower(gained: float, lost: float, episodes: int) -> float:
    """The difference below the estimate whose score statistic is exactly z."""
    from scipy.optimize import brentq

    estimate = (gained - lost) / episodes
    if estimate <= -1:
        return -1.0
    # At the estimate itself the statistic is 0, or 0 / 0: the root looked for lies strictly below.
    return float(brentq(_excess, -1.0, max(estimate - 1e-9, -1.0), args=(gained, lost, episodes)))


def _excess(difference: float, gained: float, lost: float, episodes: int) -> float:
    """Numerator of Tango's statistic minus z times its standard error, positive where `difference` is too low."""
    # The share that is lost has under this difference a maximum likelihood estimate that solves a x^2 + b x + c = 0.
    a = 2 * episodes
    b = -gained - lost + (2 * episodes - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = episodes * (2 * share + difference * (1 - difference))
    return gained - lost - episodes * difference - _Z * sqrt(max(variance, 0.0))
