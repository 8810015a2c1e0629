"""RMS normalisation, plain or adaptive (adaRMS: scale, shift and gate computed from the denoising time)."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["Modulation", "RMSNorm"]

_EPSILON = 1e-6


class Modulation(flax.struct.PyTreeNode):
    """Scale, shift and gate of one adaptive norm, side by side; computed already, so its Dense is not needed."""

    values: Float[Array, "*batch modulation_width"]
    """(…, 3 · width), as the norm's Dense gives them."""


class RMSNorm(nn.Module):
    """RMS normalisation, eps 1e-6, in float32 and cast back.

    The adaptive kind holds one Dense from the conditioning vector to (scale, shift, gate) and no scale of its own.
    """

    adaptive: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        conditioning: Float[Array, "batch cond_width"] | Modulation | None,
    ) -> tuple[Float[Array, "batch tokens width"], Float[Array, "batch 1 width"] | None]:
        """The normalised tokens and, when adaptive, the gate of the residual branch.

        Args:
            conditioning: the vector that an adaptive norm computes its modulation from, or the modulation itself.
        """
        width = x.shape[-1]
        variance = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
        normed = x * jax.lax.rsqrt(variance + _EPSILON)
        if not self.adaptive:
            scale = self.param("scale", nn.initializers.zeros, (width,))
            return (normed * (1 + scale)).astype(x.dtype), None
        if isinstance(conditioning, Modulation):
            values = conditioning.values
        else:
            dense = nn.Dense(3 * width, kernel_init=nn.initializers.zeros, dtype=x.dtype, name="Dense_0")
            values = dense(conditioning)
        scale, shift, gate = jnp.split(values[:, None, :], 3, axis=-1)
        return (normed * (1 + scale) + shift).astype(x.dtype), gate
