"""A policy whose answers depend on the noise alone: each episode has a length and a success of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from policy_protocol import InferRequest
from sim_client.results.directory import read_results

__all__ = ["identity", "outcome_of"]


def outcome_of(request: InferRequest) -> float:
    """A step's length."""
    return float(np.random.default_rng(request.noise_seed).uniform(0.0, 0.12))


def identity(directory: Path) -> list[tuple]:
    """What must not depend on who ran an episode."""
    return [(one.seed, one.outcome, one.steps, one.action_hash) for one in read_results(directory)[1]]
