"""Blocks that are computed a second time in the backward pass, so that their insides need no memory until then."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

__all__ = ["recomputed"]


def recomputed(block: type[nn.Module], policy: str | None) -> Any:
    """The block, keeping for its backward pass what a policy of `jax.checkpoint_policies` saves; None keeps all."""
    if policy is None:
        return block
    # A scan's body is never merged with its second computation, so nothing need prevent it.
    return nn.remat(block, prevent_cse=False, policy=getattr(jax.checkpoint_policies, policy))
