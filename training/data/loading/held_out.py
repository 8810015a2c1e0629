"""Which episodes are kept out of training, to be validated on."""

from __future__ import annotations

import hashlib

from training.data.errors import DatasetInvalid

__all__ = ["check_fraction", "held_out_episodes"]


def held_out_episodes(count: int, fraction: float, seed: int) -> tuple[int, ...]:
    """Episodes to keep out of training, ascending: about `fraction` of `count`, the same for the same seed.

    Each episode is judged by a hash of (seed, its number) alone: a dataset that grows moves no old episode between the
    two parts. At least one is held out when the fraction is positive, and never all of them.

    Raises:
        DatasetInvalid: the fraction is not in [0, 1), or there is only one episode to divide.
    """
    check_fraction(fraction)
    if fraction == 0.0:
        return ()
    if count < 2:
        raise DatasetInvalid("A dataset of one episode cannot hold any out. Pass --set held_out=0.")
    ranked = sorted(range(count), key=lambda episode: _share(seed, episode))
    size = sum(_share(seed, episode) < fraction for episode in range(count))
    return tuple(sorted(ranked[: min(max(1, size), count - 1)]))


def check_fraction(fraction: float) -> None:
    """Whether this share of the episodes can be held out. Raises `DatasetInvalid`."""
    if not 0.0 <= fraction < 1.0:
        raise DatasetInvalid(f"The held-out fraction {fraction} must be at least 0 and below 1.")


def _share(seed: int, episode: int) -> float:
    """A number in [0, 1), uniform over episodes."""
    digest = hashlib.sha256(f"{seed}:{episode}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
