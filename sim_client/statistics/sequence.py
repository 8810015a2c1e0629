"""A success rate that may be looked at after every episode."""

from __future__ import annotations

from math import lgamma, log

from sim_client.statistics.rate import CONFIDENCE

__all__ = ["ConfidenceSequence", "anytime_interval"]

_WEIGHT = 10.0
"""Episodes that the mixing distribution is worth. Of 2 to 40, which were tried at rates from 5% to 95%, 10 is within
2% of the narrowest on average at 100, 200 and 400 episodes."""

_SMALLEST = 1e-12
"""Rates closer to 0 or 1 count as 0 or 1."""


class ConfidenceSequence:
    """95% intervals of which all hold the true rate at once, so that one may stop at whichever one likes.

    The interval after n episodes holds every rate p under which a wager against p has won less than 20-fold: the
    Beta-binomial mixture likelihood ratio, with Beta(w p, w (1 - p)) around the rate in question and w = 10
    (Robbins 1970, Annals of Mathematical Statistics 41:1397; Howard, Ramdas, McAuliffe and Sekhon 2021, Annals of
    Statistics 49:1055). By Ville's inequality the true rate is ever left out with at most 5%. What one
    interval has ruled out stays ruled out: `interval` is the intersection of all so far.

    At 100 to 500 episodes it is narrower, on average over rates from 5% to 95%, than mixtures with one Beta for every
    p and than the betting intervals of Waudby-Smith and Ramdas 2024 with their predictable plug-in bets.

    Episodes must be added in the order of a list that was fixed before: the order in which workers finish favours
    short episodes.
    """

    def __init__(self) -> None:
        self.successes = 0
        self.episodes = 0
        self._low, self._high = 0.0, 1.0

    def add(self, success: bool) -> None:
        """Count the next episode of the list."""
        self.episodes += 1
        self.successes += success
        low, high = anytime_interval(self.successes, self.episodes)
        # No rate is left in the less than 5% of cases in which the true one was ruled out: the last interval stays.
        low, high = max(low, self._low), min(high, self._high)
        if low <= high:
            self._low, self._high = low, high

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) from 0 to 1; (0, 1) before the first episode."""
        return self._low, self._high

    @property
    def width(self) -> float:
        """high - low."""
        return self._high - self._low


def anytime_interval(successes: int, episodes: int) -> tuple[float, float]:
    """(low, high) after so many episodes, at least one; what earlier ones ruled out is not left out yet."""
    return _lower(successes, episodes), 1 - _lower(episodes - successes, episodes)


def _lower(successes: int, episodes: int) -> float:
    """The smallest rate that is not ruled out."""
    from scipy.optimize import brentq

    counts = (successes, episodes - successes)
    share = successes / episodes
    if share <= _SMALLEST or _winnings(_SMALLEST, *counts) <= 0:
        return 0.0
    return float(brentq(_winnings, _SMALLEST, min(share, 1 - _SMALLEST), args=counts))


def _winnings(rate: float, successes: int, failures: int) -> float:
    """Log of what the wager against `rate` has won, less the log of 20: above 0 the rate is ruled out."""
    a, b = _WEIGHT * rate, _WEIGHT * (1 - rate)
    mixture = _log_beta(a + successes, b + failures) - _log_beta(a, b)
    return mixture - successes * log(rate) - failures * log(1 - rate) + log(1 - CONFIDENCE)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
