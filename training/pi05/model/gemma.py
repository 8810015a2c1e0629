"""Two Gemma transformers that share their attention: the prefix's language model and the actions' expert.

Einsum letters: B batch, T query tokens, S key tokens, D width, N heads, K key-value heads, H head_dim. Parameters of
the expert carry the suffix `_1`, as in openpi's tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from training.pi05.model.attention import AttentionKernel, apply_rope, attend
from training.pi05.model.batch_cut import keep_batch_cut
from training.pi05.model.config import GemmaConfig
from training.pi05.model.modulation import Modulations
from training.pi05.model.norm import Modulation, RMSNorm
from training.pi05.model.projections import Einsum, FeedForward
from training.pi05.model.remat import recomputed

__all__ = ["Gemma", "KVCache", "LayerCache"]

LayerCache: TypeAlias = tuple[
    Float[Array, "*layers batch tokens kv_heads head_dim"], Float[Array, "*layers batch tokens kv_heads head_dim"]
]
"""Keys (rotated) and values of one layer; scanned layers give all of them with a leading axis."""
KVCache: TypeAlias = LayerCache | tuple[LayerCache, ...]
"""Keys and values of every layer, as the layers are: scanned or unrolled."""
Streams: TypeAlias = Sequence[Float[Array, "batch tokens width"] | None]
"""One entry for each expert: its tokens, or None when it does not take part."""
Conditioning: TypeAlias = Float[Array, "batch cond_width"] | Modulations | None
"""What the adaptive norms are computed from: the vector, or their modulations, computed already."""


def _expert_name(name: str, expert: int) -> str:
    return name if expert == 0 else f"{name}_{expert}"


class _Attention(nn.Module):
    configs: tuple[GemmaConfig, ...]
    kernel: AttentionKernel

    @nn.compact
    def __call__(
        self,
        streams: Streams,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch #tokens keys"],
        cache: LayerCache | None,
    ) -> tuple[list[Array | None], LayerCache]:
        present = [i for i, x in enumerate(streams) if x is not None]
        queries, keys, values = zip(*(self._project(i, streams[i]) for i in present), strict=True)
        q = apply_rope(jnp.concatenate(queries, axis=1), positions) * self.configs[0].head_dim ** -0.5
        k = apply_rope(jnp.concatenate(keys, axis=1), positions)
        v = jnp.concatenate(values, axis=1)
        if cache is not None:
            k, v = jnp.concatenate([cache[0], k], axis=1), jnp.concatenate([cache[1], v], axis=1)
        encoded = attend(q, k, v, mask, self.kernel)
        outputs: list[Array | None] = [None] * len(streams)
        start = 0
        for i in present:
            stop = start + streams[i].shape[1]
            c = self.configs[i]
            out = self._einsum("attn_vec_einsum", i, (c.heads, c.head_dim, c.width), c.heads * c.head_dim)
            outputs[i] = out("BTNH,NHD->BTD", encoded[:, start:stop])
            start = stop
        return outputs, (k, v)

    def _project(self, i: int, x: Array) -> tuple[Array, Array, Array]:
        c = self.configs[i]
        if c.kv_heads == c.heads:  # openpi's tree holds one matrix then
            qkv = self._einsum("qkv_einsum", i, (3, c.heads, c.width, c.head_dim), c.width)
            q, k, v = qkv("BSD,3KDH->3BSKH", x)
            return q, k, v
        q = self._einsum("q_einsum", i, (c.heads, c.width, c.head_dim), c.width)("BTD,NDH->BTNH", x)
        kv = self._einsum("kv_einsum", i, (2, c.kv_heads, c.width, c.head_dim), c.width)
        k, v = kv("BSD,2KDH->2BSKH", x)
        return q, k, v

    def _einsum(self, name: str, i: int, shape: tuple[int, ...], fan_in: int) -> Einsum:
        return Einsum(shape, fan_in, self.configs[i].lora_rank, name=_expert_name(name, i))


class _Block(nn.Module):
    configs: tuple[GemmaConfig, ...]
    adaptive: tuple[bool, ...]
    kernel: AttentionKernel

    @nn.compact
    def __call__(
        self,
        streams: Streams,
        cache: LayerCache | None,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch #tokens keys"],
        conditioning: Float[Array, "batch cond_width"] | tuple[Modulation, Modulation] | None,
    ) -> tuple[Streams, LayerCache]:
        streams = [None if x is None else keep_batch_cut(x) for x in streams]
        before_attention, before_ffw = conditioning if isinstance(conditioning, tuple) else (conditioning, conditioning)
        normed, gates = self._norm("pre_attention_norm", streams, before_attention)
        attended, cache = _Attention(self.configs, self.kernel, name="attn")(normed, positions, mask, cache)
        streams = _gated_residual(streams, attended, gates)
        normed, gates = self._norm("pre_ffw_norm", streams, before_ffw)
        fed = [
            None if x is None else FeedForward(self.configs[i], name=_expert_name("mlp", i))(x)
            for i, x in enumerate(normed)
        ]
        return _gated_residual(streams, fed, gates), cache

    def _norm(
        self, name: str, streams: Streams, conditioning: Array | Modulation | None
    ) -> tuple[list[Array | None], list]:
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
    """Both transformers over one attention. Stream 0 is the prefix, stream 1 the suffix (conditioned on time).

    Scanned layers compile once and hold their weights stacked, as checkpoints do. Unrolled ones have weights of their
    own each (`unroll` in serving.py makes them): nothing is sliced at run time, and what no later layer
    reads is never computed.
    """

    configs: tuple[GemmaConfig, ...]
    adaptive: tuple[bool, ...]
    vocabulary: int
    dtype: jnp.dtype
    remat: str | None
    """What the recomputed blocks keep (a name of `jax.checkpoint_policies`); None recomputes nothing."""
    unrolled: bool = False
    kernel: AttentionKernel = "plain"

    def setup(self) -> None:
        self.embedder = _Embedder(self.vocabulary, self.configs[0].width)
        depth = self.configs[0].depth
        if self.unrolled:
            self.layers = [_Block(self.configs, self.adaptive, self.kernel) for _ in range(depth)]
        else:
            blocks: Any = nn.scan(
                recomputed(_Block, self.remat),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=depth,
            )
            self.layers = blocks(self.configs, self.adaptive, self.kernel)
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
        mask: Bool[Array, "batch #tokens keys"],
        conditioning: Conditioning = None,
        cache: KVCache | None = None,
    ) -> tuple[list[Array | None], KVCache]:
        """Run the streams that are present; the returned cache holds what came in with `cache`, then theirs.

        `Modulations` in place of the conditioning vector are for unrolled layers.
        """
        streams = [None if x is None else x.astype(self.dtype) for x in streams]
        run = self._one_by_one if self.unrolled else self.layers
        streams, cache = run(streams, cache, positions, mask, conditioning)
        last = conditioning.final if isinstance(conditioning, Modulations) else conditioning
        outputs = [None if x is None else norm(x, last)[0] for x, norm in zip(streams, self.final_norms, strict=True)]
        return outputs, cache

    def _one_by_one(
        self, streams: Streams, cache: KVCache | None, positions: Array, mask: Array, conditioning: Conditioning
    ) -> tuple[Streams, KVCache]:
        caches = []
        for index, layer in enumerate(self.layers):
            at = conditioning.of_layer(index) if isinstance(conditioning, Modulations) else conditioning
            before = None if cache is None else cache[index]
            streams, after = layer(streams, before, positions, mask, at)
            caches.append(after)
        return streams, tuple(caches)


class _Embedder(nn.Module):
    vocabulary: int
    width: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "batch tokens"]) -> Float[Array, "batch tokens width"]:
        table = self.param("input_embedding", nn.initializers.normal(), (self.vocabulary, self.width))
        embedded = table[tokens]
        return embedded * jnp.sqrt(self.width).astype(embedded.dtype)
