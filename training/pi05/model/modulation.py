"""The modulations of all adaptive norms at the fixed denoising times: computed once, when a policy is loaded.

They depend on the time alone, so 117M of the full model's parameters leave the denoising loop.
"""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from training.pi05.model.norm import Modulation

__all__ = ["Modulations", "modulations_at"]


class Modulations(flax.struct.PyTreeNode):
    """Scale, shift and gate of the expert's norms; `steps` is one time, or all of them."""

    pre_attention: Float[Array, "*steps batch layers modulation_width"]
    pre_ffw: Float[Array, "*steps batch layers modulation_width"]
    final_norm: Float[Array, "*steps batch modulation_width"]

    def of_layer(self, index: int) -> tuple[Modulation, Modulation]:
        """Of one layer: before its attention, before its feed-forward."""
        return Modulation(self.pre_attention[..., index, :]), Modulation(self.pre_ffw[..., index, :])

    @property
    def final(self) -> Modulation:
        """Of the norm after the last layer."""
        return Modulation(self.final_norm)


def modulations_at(llm: PyTree[Array], conditioning: Float[Array, "steps cond_width"], dtype: jnp.dtype) -> Modulations:
    """Apply the Dense of every adaptive norm to each time's conditioning vector, in the compute type.

    Args:
        llm: the parameters under `PaliGemma/llm`, layers stacked.

    Returns:
        Modulations with axes (steps, batch 1, …): every row of a batch is at the same time.
    """
    layers = llm["layers"]

    def dense(norm: PyTree[Array]) -> Array:
        kernel, bias = (norm["Dense_0"][name].astype(dtype) for name in ("kernel", "bias"))
        return jnp.einsum("SC,...CM->S...M", conditioning.astype(dtype), kernel)[:, None] + bias

    return Modulations(
        pre_attention=dense(layers["pre_attention_norm_1"]),
        pre_ffw=dense(layers["pre_ffw_norm_1"]),
        final_norm=dense(llm["final_norm_1"]),
    )
