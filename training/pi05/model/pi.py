"""Pi0 and Pi0.5: a vision-language prefix and a flow-matching action expert over one attention.

The sequence is prefix (image tokens of each camera, then the prompt), then suffix (Pi0: a state token; both: one token
for each step of the action chunk). The prefix never sees the suffix, so its keys and values serve all denoising steps.
Masked tokens consume no position: leaving out an absent camera or the prompt's padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from training.pi05.model.attention import AttentionKernel, attention_mask
from training.pi05.model.config import ModelConfig
from training.pi05.model.gemma import Gemma, KVCache
from training.pi05.model.modulation import Modulations
from training.pi05.model.siglip import SigLIP

__all__ = ["ModelInput", "PiModel", "Prefix", "time_embedding"]


class ModelInput(flax.struct.PyTreeNode):
    """What the model sees, after the transforms. The cameras are those that the policy really has."""

    images: Mapping[str, UInt8[Array, "batch height width 3"] | Float[Array, "batch height width 3"]]
    """Slot (`base_0_rgb`) -> image at the model's size: bytes, or floats in [-1, 1] where training augmented them."""
    image_masks: Mapping[str, Bool[Array, "batch"]]
    """Whether the camera exists in that row."""
    tokens: Int[Array, "batch prompt"]
    token_mask: Bool[Array, "batch prompt"]
    state: Float[Array, "batch action_dim"]
    """Normalised and padded. Pi0 reads it; Pi0.5 has it in the prompt."""


class Prefix(flax.struct.PyTreeNode):
    """The computed prefix: what every denoising step attends to."""

    cache: KVCache
    valid: Bool[Array, "batch prefix"]


def time_embedding(
    t: Float[Array, "batch"], width: int, min_period: float = 4e-3, max_period: float = 4.0
) -> Float[Array, "batch width"]:
    """Sine and cosine of t at geometrically spaced periods, (sines, cosines), in float32."""
    fraction = jnp.linspace(0.0, 1.0, width // 2)
    period = min_period * (max_period / min_period) ** fraction
    phase = jnp.einsum("i,j->ij", t, 1.0 / period * 2 * jnp.pi, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


class _PaliGemma(nn.Module):
    config: ModelConfig
    unrolled: bool
    kernel: AttentionKernel

    def setup(self) -> None:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.img = SigLIP(c.vision, c.language.width, dtype, c.saved_in_blocks, self.unrolled)
        experts, adaptive = (c.language, c.expert), (False, c.pi05)
        self.llm = Gemma(experts, adaptive, c.vocabulary, dtype, c.saved_in_blocks, self.unrolled, self.kernel)


class PiModel(nn.Module):
    """Parameters as in openpi's checkpoints. Methods: `prefill` once, then `velocity` for each denoising step."""

    config: ModelConfig
    unrolled: bool = False
    """Layers with weights of their own each, for inference; its parameters come from `serving_params`."""
    kernel: AttentionKernel = "plain"

    def setup(self) -> None:
        width = self.config.expert.width
        self.PaliGemma = _PaliGemma(self.config, self.unrolled, self.kernel)
        self.action_in_proj = nn.Dense(width)
        self.action_out_proj = nn.Dense(self.config.action_dim)
        if self.config.pi05:
            self.time_mlp_in, self.time_mlp_out = nn.Dense(width), nn.Dense(width)
        else:
            self.state_proj = nn.Dense(width)
            self.action_time_mlp_in, self.action_time_mlp_out = nn.Dense(width), nn.Dense(width)

    def embed_prefix(
        self, inputs: ModelInput
    ) -> tuple[Float[Array, "batch prefix width"], Bool[Array, "batch prefix"]]:
        """Image and prompt tokens, and which of them are real. All cameras pass the tower as one batch."""
        stacked = jnp.concatenate(list(inputs.images.values()))
        floating = jnp.issubdtype(stacked.dtype, jnp.floating)
        pixels = stacked if floating else stacked.astype(jnp.float32) / 255.0 * 2.0 - 1.0
        per_camera = jnp.split(self.PaliGemma.img(pixels), len(inputs.images))
        tokens = jnp.concatenate([*per_camera, self.PaliGemma.llm.embed(inputs.tokens)], axis=1)
        valid = [
            jnp.repeat(inputs.image_masks[slot][:, None], image.shape[1], axis=1)
            for slot, image in zip(inputs.images, per_camera, strict=True)
        ]
        return tokens, jnp.concatenate([*valid, inputs.token_mask], axis=1)

    def embed_suffix(
        self,
        state: Float[Array, "batch action_dim"],
        noisy_actions: Float[Array, "batch action_horizon action_dim"],
        t: Float[Array, "batch"],
    ) -> tuple[Float[Array, "batch suffix width"], Bool[Array, "suffix"], Float[Array, "batch width"] | None]:
        """Suffix tokens, which of them open an attention block, and adaRMS's conditioning (Pi0.5)."""
        actions = self.action_in_proj(noisy_actions)
        horizon = noisy_actions.shape[1]
        if self.config.pi05:
            return actions, jnp.arange(horizon) == 0, self.conditioning(t)
        time = time_embedding(t, self.config.expert.width)
        times = jnp.repeat(time[:, None], horizon, axis=1).astype(actions.dtype)
        mixed = self.action_time_mlp_out(nn.swish(self.action_time_mlp_in(jnp.concatenate([actions, times], axis=-1))))
        tokens = jnp.concatenate([self.state_proj(state)[:, None], mixed], axis=1)
        return tokens, jnp.arange(horizon + 1) < 2, None

    def conditioning(self, t: Float[Array, "batch"]) -> Float[Array, "batch width"]:
        """The vector that adaRMS's norms are computed from (Pi0.5)."""
        time = time_embedding(t, self.config.expert.width)
        return nn.swish(self.time_mlp_out(nn.swish(self.time_mlp_in(time))))

    def prefill(self, inputs: ModelInput) -> Prefix:
        """Compute the prefix once, keeping its keys and values.

        All of it is one block, so one mask of the keys serves every query. (A padded query then computes something
        that nobody reads, never NaN.)
        """
        tokens, valid = self.embed_prefix(inputs)
        mask = valid[:, None, :]
        positions = jnp.cumsum(valid, axis=1) - 1
        _, cache = self.PaliGemma.llm([tokens, None], positions, mask)
        return Prefix(cache, valid)

    def velocity(
        self,
        prefix: Prefix,
        state: Float[Array, "batch action_dim"],
        noisy_actions: Float[Array, "batch action_horizon action_dim"],
        t: Float[Array, "batch"],
        modulations: Modulations | None = None,
    ) -> Float[Array, "batch action_horizon action_dim"]:
        """v_t at the noisy actions, given the computed prefix; `modulations` at t spare their computation (Pi0.5)."""
        if modulations is None:
            tokens, starts_block, conditioning = self.embed_suffix(state, noisy_actions, t)
        else:
            tokens, conditioning = self.action_in_proj(noisy_actions), modulations
            starts_block = jnp.arange(noisy_actions.shape[1]) == 0
        batch, suffix = tokens.shape[:2]
        own = attention_mask(jnp.ones((batch, suffix), bool), starts_block)
        to_prefix = jnp.broadcast_to(prefix.valid[:, None, :], (batch, suffix, prefix.valid.shape[1]))
        positions = jnp.sum(prefix.valid, axis=1)[:, None] + jnp.arange(suffix)
        mask = jnp.concatenate([to_prefix, own], axis=-1)
        (_, out), _ = self.PaliGemma.llm([None, tokens], positions, mask, conditioning, prefix.cache)
        return self.action_out_proj(out[:, -noisy_actions.shape[1] :])

    def __call__(
        self,
        inputs: ModelInput,
        noisy_actions: Float[Array, "batch action_horizon action_dim"],
        t: Float[Array, "batch"],
    ) -> Float[Array, "batch action_horizon action_dim"]:
        """v_t with prefix and suffix in one pass: what training differentiates."""
        prefix, prefix_valid = self.embed_prefix(inputs)
        suffix, starts_block, conditioning = self.embed_suffix(inputs.state, noisy_actions, t)
        valid = jnp.concatenate([prefix_valid, jnp.ones(suffix.shape[:2], bool)], axis=1)
        starts = jnp.concatenate([jnp.zeros(prefix.shape[1], bool), starts_block])
        positions = jnp.cumsum(valid, axis=1) - 1
        (_, out), _ = self.PaliGemma.llm([prefix, suffix], positions, attention_mask(valid, starts), conditioning)
        return self.action_out_proj(out[:, -noisy_actions.shape[1] :])
