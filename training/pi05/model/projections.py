"""The two kinds of weights in a Gemma block, each with or without LoRA factors; names are Gemma's checkpoints'."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from training.pi05.model.config import GemmaConfig
from training.pi05.model.lora import INIT_SCALE, lora_equations, lora_shapes

__all__ = ["Einsum", "FeedForward"]


class Einsum(nn.Module):
    """A weight named `w`; `fan_in` names the input axes' product for its initial scale."""

    shape: tuple[int, ...]
    fan_in: int
    lora_rank: int

    @nn.compact
    def __call__(self, equation: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The einsum of `x` with the weight, plus the factors' share."""
        w = self.param("w", nn.initializers.normal(self.fan_in**-0.5), self.shape)
        y = jnp.einsum(equation, x, w.astype(x.dtype))
        if not self.lora_rank:
            return y
        down, up = lora_equations(equation)
        a, b = _factors(self, "", self.shape, self.lora_rank)
        return y + jnp.einsum(up, jnp.einsum(down, x, a.astype(x.dtype)), b.astype(x.dtype))


class FeedForward(nn.Module):
    """GeGLU: `gelu(x·W0) * (x·W1) · W2`."""

    config: GemmaConfig

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        width, hidden = self.config.width, self.config.mlp_width
        gating = self._weight("gating_einsum", (2, width, hidden))
        linear = self._weight("linear", (hidden, width))
        gate, up = (_through(x, tuple(factor[index] for factor in gating)) for index in (0, 1))
        return _through(nn.gelu(gate, approximate=True) * up, linear)

    def _weight(self, name: str, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """The weight alone, or with its two factors."""
        weight = self.param(name, nn.initializers.normal(shape[-2] ** -0.5), shape)
        if not self.config.lora_rank:
            return (weight,)
        return (weight, *_factors(self, f"{name}_", shape, self.config.lora_rank))


def _factors(module: nn.Module, prefix: str, shape: tuple[int, ...], rank: int) -> tuple[Array, Array]:
    shape_a, shape_b = lora_shapes(shape, rank)
    init = nn.initializers.normal(INIT_SCALE)
    return module.param(f"{prefix}lora_a", init, shape_a), module.param(f"{prefix}lora_b", init, shape_b)


def _through(x: Array, weights: tuple[Array, ...]) -> Array:
    weight, *factors = (part.astype(x.dtype) for part in weights)
    y = x @ weight
    return y + (x @ factors[0]) @ factors[1] if factors else y
