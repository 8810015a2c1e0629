"""Arithmetic of a training step, for the share of the hardware that a run makes use of (MFU).

Counted by hand from the model's sizes, as in the appendix of PaLM (Chowdhery et al. 2022): a product with a weight
costs 2 operations forward, 2 backward for its input and 2 for the weight; what is recomputed is not counted. XLA's own
count is no use here: it counts the body of a loop over layers once.
"""

from __future__ import annotations

import jax

from training.pi05.model.config import GemmaConfig, ModelConfig, SigLIPConfig

__all__ = ["peak_flops", "training_flops"]

_FORWARD_AND_BACKWARD = 3
"""Operations of a step over those of its forward pass. Frozen weights need less: with LoRA the figure is too high by
up to a third."""
_PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
}
"""Dense bfloat16 operations a second, by what a device's kind contains; makers' data sheets (SXM for H100, H200)."""


def peak_flops(device: jax.Device) -> float | None:
    """Operations a second of a device in bfloat16; None for one that is not in the table, such as a CPU."""
    return next((peak for name, peak in _PEAKS.items() if name in device.device_kind), None)


def training_flops(model: ModelConfig, *, batch: int, cameras: int, prompt: int) -> float:
    """Floating-point operations of one training step.

    Args:
        batch: samples in it.
        cameras: that the model sees.
        prompt: tokens that prompts are padded to.
    """
    prefix = cameras * model.vision.tokens + prompt
    suffix = model.action_horizon + (0 if model.pi05 else 1)  # Pi0 has a token for the state
    forward = (
        cameras * _vision(model.vision, model.language.width)
        + _transformer(model.language, prefix)
        + _transformer(model.expert, suffix)
        + _attention(model.language, prefix, prefix)
        + _attention(model.language, suffix, prefix + suffix)
    )
    return float(_FORWARD_AND_BACKWARD * batch * forward)


def _transformer(config: GemmaConfig, tokens: int) -> int:
    """Products with weights."""
    attention = config.width * config.head_dim * (2 * config.heads + 2 * config.kv_heads)
    return 2 * tokens * config.depth * (attention + 3 * config.width * config.mlp_width)


def _attention(config: GemmaConfig, queries: int, keys: int) -> int:
    """Scores and their sums over values."""
    return 4 * config.depth * config.heads * config.head_dim * queries * keys


def _vision(config: SigLIPConfig, out: int) -> int:
    """One camera."""
    weights = config.depth * (4 * config.width**2 + 2 * config.width * config.mlp_width)
    ends = 3 * config.patch_size**2 * config.width + config.width * out
    attention = 4 * config.depth * config.width * config.tokens**2
    return 2 * config.tokens * (weights + ends) + attention
