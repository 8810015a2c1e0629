"""Two Gemma transformers that share their attention: the prefix's language model and the actions' expert.

Einsum letters: B batch, T query tokens, S key tokens, D width, N heads, K key-value heads, G heads per key-value head,
H head_dim. Parameters of the expert carry the suffix `_1`, as in openpi's tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from training.pi05.model.config import GemmaConfig

__all__ = ["Gemma", "KVCache", "apply_rope", "attention_mask"]

KVCache: TypeAlias = tuple[
    Float[Array, "layers batch tokens kv_heads head_dim"], Float[Array, "layers batch tokens kv_heads head_dim"]
]
"""Keys (rotated) and values of every layer."""
Streams: TypeAlias = Sequence[Float[Array, "batch tokens width"] | None]
"""One entry for each expert: its tokens, or None when it does not take part."""

_MASKED_LOGIT = -2.3819763e38
"""Gemma's value for keys that a query may not see."""
_NORM_EPSILON = 1e-6


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


def _expert_name(name: str, expert: int) -> str:
    return name if expert == 0 else f"{name}_{expert}"


class RMSNorm(nn.Module):
    """RMS normalisation, plain or adaptive (adaRMS: scale, shift and gate computed from a conditioning vector)."""

    adaptive: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], conditioning: Float[Array, "batch cond_width"] | None
    ) -> tuple[Float[Array, "batch tokens width"], Float[Array, "batch 1 width"] | None]:
        """The normalised tokens and, when adaptive, the gate of the residual branch."""
        width = x.shape[-1]
        variance = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
        normed = x * jax.lax.rsqrt(variance + _NORM_EPSILON)
        if not self.adaptive:
            scale = self.param("scale", nn.initializers.zeros, (width,))
            return (normed * (1 + scale)).astype(x.dtype), None
        dense = nn.Dense(3 * width, kernel_init=nn.initializers.zeros, dtype=x.dtype, name="Dense_0")
        scale, shift, gate = jnp.split(dense(conditioning)[:, None, :], 3, axis=-1)
        return (normed * (1 + scale) + shift).astype(x.dtype), gate


class _Einsum(nn.Module):
    """A weight named `w`, as Gemma's checkpoints have it; `fan_in` names the input axes' product for its scale."""

    shape: tuple[int, ...]
    fan_in: int

    @nn.compact
    def __call__(self, equation: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
        w = self.param("w", nn.initializers.normal(self.fan_in**-0.5), self.shape)
        return jnp.einsum(equation, x, w.astype(x.dtype))


class _Attention(nn.Module):
    configs: tuple[GemmaConfig, ...]

    @nn.compact
    def __call__(
        self,
        streams: Streams,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens keys"],
        cache: tuple[Array, Array] | None,
    ) -> tuple[list[Array | None], tuple[Array, Array]]:
        present = [i for i, x in enumerate(streams) if x is not None]
        queries, keys, values = zip(*(self._project(i, streams[i]) for i in present), strict=True)
        q = apply_rope(jnp.concatenate(queries, axis=1), positions) * self.configs[0].head_dim ** -0.5
        k = apply_rope(jnp.concatenate(keys, axis=1), positions)
        v = jnp.concatenate(values, axis=1)
        if cache is not None:
            k, v = jnp.concatenate([cache[0], k], axis=1), jnp.concatenate([cache[1], v], axis=1)
        encoded = _attend(q, k, v, mask)
        outputs: list[Array | None] = [None] * len(streams)
        start = 0
        for i in present:
            stop = start + streams[i].shape[1]
            config = self.configs[i]
            out = _Einsum(
                (config.heads, config.head_dim, config.width),
                config.heads * config.head_dim,
                name=_expert_name("attn_vec_einsum", i),
            )
            outputs[i] = out("BTNH,NHD->BTD", encoded[:, start:stop])
            start = stop
        return outputs, (k, v)

    def _project(self, i: int, x: Array) -> tuple[Array, Array, Array]:
        c = self.configs[i]
        if c.kv_heads == c.heads:  # openpi's tree holds one matrix then
            qkv = _Einsum((3, c.heads, c.width, c.head_dim), c.width, name=_expert_name("qkv_einsum", i))
            q, k, v = qkv("BSD,3KDH->3BSKH", x)
            return q, k, v
        q = _Einsum((c.heads, c.width, c.head_dim), c.width, name=_expert_name("q_einsum", i))("BTD,NDH->BTNH", x)
        kv = _Einsum((2, c.kv_heads, c.width, c.head_dim), c.width, name=_expert_name("kv_einsum", i))
        k, v = kv("BSD,2KDH->2BSKH", x)
        return q, k, v


def _attend(
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads head_dim"],
    mask: Bool[Array, "batch queries keys"],
) -> Float[Array, "batch queries heads head_dim"]:
    """Grouped-query attention with float32 logits and softmax; head i reads key-value head i // G."""
    batch, queries, heads, head_dim = q.shape
    grouped = q.reshape(batch, queries, k.shape[2], heads // k.shape[2], head_dim)
    logits = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, k, preferred_element_type=jnp.float32)
    logits = jnp.where(mask[:, None, None], logits, _MASKED_LOGIT)
    weights = jax.nn.softmax(logits, axis=-1).astype(k.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v).reshape(q.shape)


class _FeedForward(nn.Module):
    """GeGLU: `gelu(x·W0) * (x·W1) · W2`."""

    config: GemmaConfig

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        width, hidden = self.config.width, self.config.mlp_width
        gating = self.param("gating_einsum", nn.initializers.normal(width**-0.5), (2, width, hidden)).astype(x.dtype)
        linear = self.param("linear", nn.initializers.normal(hidden**-0.5), (hidden, width)).astype(x.dtype)
        return (nn.gelu(x @ gating[0], approximate=True) * (x @ gating[1])) @ linear


class _Block(nn.Module):
    configs: tuple[GemmaConfig, ...]
    adaptive: tuple[bool, ...]

    @nn.compact
    def __call__(
        self,
        streams: Streams,
        cache: tuple[Array, Array] | None,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens keys"],
        conditioning: Float[Array, "batch cond_width"] | None,
    ) -> tuple[Streams, tuple[Array, Array]]:
        normed, gates = self._norm("pre_attention_norm", streams, conditioning)
        attended, cache = _Attention(self.configs, name="attn")(normed, positions, mask, cache)
        streams = _gated_residual(streams, attended, gates)
        normed, gates = self._norm("pre_ffw_norm", streams, conditioning)
        fed = [
            None if x is None else _FeedForward(self.configs[i], name=_expert_name("mlp", i))(x)
            for i, x in enumerate(normed)
        ]
        return _gated_residual(streams, fed, gates), cache

    def _norm(self, name: str, streams: Streams, conditioning: Array | None) -> tuple[list[Array | None], list]:
        pairs = [
            (None, None) if x is None else RMSNorm(self.adaptive[i], name=_expert_name(name, i))(x, conditioning)
            for i, x in enumerate(streams)
        ]
        return [x for x, _ in pairs], [gate for _, gate in pairs]


def _gated_residual(streams: Streams, branches: Streams, gates: Sequence[Array | None]) -> list[Array | None]:
    return [
        None if x is None else x + y if gate is None else x + y * gate
        for x, y, gate in zip(streams, branches, gates, strict=True)
    ]


class Gemma(nn.Module):
    """Both transformers over one attention. Stream 0 is the prefix, stream 1 the suffix (conditioned on time)."""

    configs: tuple[GemmaConfig, ...]
    adaptive: tuple[bool, ...]
    vocabulary: int
    dtype: jnp.dtype
    remat: bool

    def setup(self) -> None:
        self.embedder = _Embedder(self.vocabulary, self.configs[0].width)
        blocks = nn.scan(
            nn.remat(_Block, prevent_cse=False) if self.remat else _Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.configs[0].depth,
        )
        self.layers = blocks(self.configs, self.adaptive)
        self.final_norms = [
            RMSNorm(adaptive, name=_expert_name("final_norm", i)) for i, adaptive in enumerate(self.adaptive)
        ]

    def embed(self, tokens: Int[Array, "batch tokens"]) -> Float[Array, "batch tokens width"]:
        """Text embedding, scaled by the square root of the width."""
        return self.embedder(tokens).astype(self.dtype)

    def __call__(
        self,
        streams: Streams,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens keys"],
        conditioning: Float[Array, "batch cond_width"] | None = None,
        cache: KVCache | None = None,
    ) -> tuple[list[Array | None], KVCache]:
        """Run the streams that are present; the returned cache holds what came in with `cache`, then theirs."""
        streams = [None if x is None else x.astype(self.dtype) for x in streams]
        streams, cache = self.layers(streams, cache, positions, mask, conditioning)
        outputs = [
            None if x is None else norm(x, conditioning)[0] for x, norm in zip(streams, self.final_norms, strict=True)
        ]
        return outputs, cache


class _Embedder(nn.Module):
    vocabulary: int
    width: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "batch tokens"]) -> Float[Array, "batch tokens width"]:
        table = self.param("input_embedding", nn.initializers.normal(), (self.vocabulary, self.width))
        embedded = table[tokens]
        return embedded * jnp.sqrt(self.width).astype(embedded.dtype)
