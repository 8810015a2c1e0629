"""Attention over the prefix and the suffix: who sees whom, where each token stands, and the product itself.

Einsum letters: B batch, T query tokens, S key tokens, K key-value heads, G query heads per key-value head, H head_dim.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["AttentionKernel", "apply_rope", "attend", "attention_mask"]

AttentionKernel = Literal["plain", "xla", "cudnn"]
"""How `attend` computes: our einsums, or `jax.nn.dot_product_attention` by its name of the implementation."""

_MASKED_LOGIT = -2.3819763e38
"""Gemma's value for keys that a query may not see."""


def attention_mask(
    valid: Bool[Array, "batch tokens"], starts_block: Bool[Array, "*batch tokens"]
) -> Bool[Array, "batch tokens tokens"]:
    """Which key (last axis) each query sees: valid tokens of its own block and of every block before it.

    A token with `starts_block` True opens a block that earlier tokens cannot see (big_vision's `mask_ar`).
    """
    block = jnp.cumsum(jnp.broadcast_to(starts_block, valid.shape), axis=1)
    visible = block[:, None, :] <= block[:, :, None]
    return visible & (valid[:, None, :] & valid[:, :, None])


def apply_rope(
    x: Float[Array, "batch tokens heads head_dim"], positions: Int[Array, "batch tokens"]
) -> Float[Array, "batch tokens heads head_dim"]:
    """Rotary position embedding (Su et al. 2021), base 10,000, over halves, in float32 and cast back."""
    half = x.shape[-1] // 2
    timescale = 10_000.0 ** (2.0 / x.shape[-1] * jnp.arange(half, dtype=jnp.float32))
    radians = positions[..., None, None].astype(jnp.float32) / timescale
    sin, cos = jnp.sin(radians), jnp.cos(radians)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def attend(
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads head_dim"],
    mask: Bool[Array, "batch #queries keys"],
    kernel: AttentionKernel,
) -> Float[Array, "batch queries heads head_dim"]:
    """Grouped-query attention with float32 logits and softmax; head i reads key-value head i // G.

    The queries are scaled already. Every kernel gives the same numbers to rounding; a query that sees no key gets
    their mean or nothing, as the kernel has it.
    """
    if kernel == "cudnn":  # it takes the mask as a bias of every query
        mask = jnp.broadcast_to(mask, (mask.shape[0], q.shape[1], mask.shape[2]))
    if kernel != "plain":
        return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], scale=1.0, implementation=kernel)
    batch, queries, heads, head_dim = q.shape
    grouped = q.reshape(batch, queries, k.shape[2], heads // k.shape[2], head_dim)
    logits = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, k, preferred_element_type=jnp.float32)
    logits = jnp.where(mask[:, None, None], logits, _MASKED_LOGIT)
    weights = jax.nn.softmax(logits, axis=-1).astype(k.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v).reshape(q.shape)
