"""SigLIP's vision tower (Zhai et al. 2023) as openpi uses it: patch tokens, no pooling, a linear head to the LLM.

Parameter names and shapes are big_vision's, so that PaliGemma's weights fit.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from training.pi05.model.batch_cut import keep_batch_cut
from training.pi05.model.config import SigLIPConfig
from training.pi05.model.remat import recomputed

__all__ = ["SigLIP"]


class _MlpBlock(nn.Module):
    mlp_width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "image tokens width"]) -> Float[Array, "image tokens width"]:
        hidden = nn.gelu(nn.Dense(self.mlp_width, dtype=self.dtype, name="Dense_0")(x), approximate=True)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="Dense_1")(hidden)


class _EncoderBlock(nn.Module):
    config: SigLIPConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "image tokens width"], _: None
    ) -> tuple[Float[Array, "image tokens width"], None]:
        x = keep_batch_cut(x)
        y = nn.LayerNorm(dtype=self.dtype, name="LayerNorm_0")(x)
        attention = nn.MultiHeadDotProductAttention(
            self.config.heads, dtype=self.dtype, deterministic=True, name="MultiHeadDotProductAttention_0"
        )
        x = x + attention(y, y)
        y = nn.LayerNorm(dtype=self.dtype, name="LayerNorm_1")(x)
        return x + _MlpBlock(self.config.mlp_width, self.dtype, name="MlpBlock_0")(y), None


class _Encoder(nn.Module):
    config: SigLIPConfig
    dtype: jnp.dtype
    remat: str | None
    unrolled: bool

    @nn.compact
    def __call__(self, x: Float[Array, "image tokens width"]) -> Float[Array, "image tokens width"]:
        if self.unrolled:
            for index in range(self.config.depth):
                x, _ = _EncoderBlock(self.config, self.dtype, name=f"encoderblock_{index}")(x, None)
        else:
            x, _ = self._scanned(x)
        return nn.LayerNorm(dtype=self.dtype, name="encoder_norm")(x)

    def _scanned(self, x: Float[Array, "image tokens width"]) -> tuple[Float[Array, "image tokens width"], None]:
        blocks = nn.scan(
            recomputed(_EncoderBlock, self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.config.depth,
        )
        scanned: tuple[Array, None] = blocks(self.config, self.dtype, name="encoderblock")(x, None)
        return scanned


class SigLIP(nn.Module):
    """Images in [-1, 1] to tokens of the language model's width.

    Patches and position embedding are computed in float32 and cast to `dtype` before the first block. The head starts
    at zero: a fresh model ignores its images.
    """

    config: SigLIPConfig
    output_width: int
    dtype: jnp.dtype
    remat: str | None
    unrolled: bool = False
    """Layers with weights of their own each (see Gemma)."""

    @nn.compact
    def __call__(self, images: Float[Array, "image height width 3"]) -> Float[Array, "image tokens output_width"]:
        patch = (self.config.patch_size, self.config.patch_size)
        x = nn.Conv(self.config.width, patch, strides=patch, padding="VALID", dtype=jnp.float32, name="embedding")(
            images.astype(jnp.float32)
        )
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        position = self.param(
            "pos_embedding", nn.initializers.normal(self.config.width**-0.5), (1, self.config.tokens, self.config.width)
        )
        x = (x + position.astype(jnp.float32)).astype(self.dtype)
        x = _Encoder(self.config, self.dtype, self.remat, self.unrolled, name="Transformer")(x)
        return nn.Dense(self.output_width, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="head")(x)
