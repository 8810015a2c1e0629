"""How the noise of an evaluation is fixed: one seed for each (run, episode, chunk)."""

from __future__ import annotations

import hashlib

__all__ = ["noise_seed"]


def noise_seed(run_seed: int, episode_seed: int, chunk_index: int) -> int:
    """The seed of the flow's initial noise for one request, in [0, 2**63).

    It depends on nothing but its arguments, so that results do not depend on how many clients run, in which order
    requests arrive, or which other requests share a batch.
    """
    text = f"{run_seed}/{episode_seed}/{chunk_index}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
