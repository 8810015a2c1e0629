"""Arithmetic of a training step, for the share of the hardware that a run makes use of (MFU).

Counted from the model's sizes, as in the appendix of PaLM (Chowdhery et al. 2022): a product with a weight costs 2
operations forward, 2 backward for its input and 2 for the weight. A frozen weight has no gradient of its own, and no
gradient flows back to where nothing trains. What is recomputed is not counted. XLA's own count is no use here: it
counts the body of a loop over layers once.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import jax

from training.pi05.model.config import GemmaConfig, ModelConfig
from training.pi05.model.params import param_shapes

__all__ = ["peak_flops", "training_flops"]

_VISION, _LANGUAGE, _EXPERT, _BETWEEN = "vision", "language", "expert", "between"
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


def training_flops(
    model: ModelConfig, *, batch: int, cameras: int, prompt: int, draws: int = 1, frozen: Collection[str] = frozenset()
) -> float:
    """Floating-point operations of one training step.

    Args:
        model: its factors of LoRA, if any, are products like others.
        batch: samples in it.
        cameras: that the model sees.
        prompt: tokens that prompts are padded to.
        draws: of noise and time for each sample, which share its prefix.
        frozen: paths of the leaves that do not train (`Freezing.frozen`).
    """
    seen = cameras * model.vision.tokens
    prefix = seen + prompt
    suffix = model.action_horizon + (0 if model.pi05 else 1)  # Pi0 has a token for the state
    flows = _flows(model, frozen)
    tokens = {_VISION: seen, _LANGUAGE: prefix, _EXPERT: draws * suffix}
    products = sum(
        2 * tokens[part] * size * (1 + flows[part] + (path not in frozen)) for path, part, size in _weights(model)
    )
    vision = 4 * model.vision.depth * model.vision.width * model.vision.tokens * seen
    # Backward, a product of two activations costs as much for each of the two.
    attention = (
        vision * (1 + 2 * flows[_VISION])
        + _attention(model.language, prefix, prefix) * (1 + 2 * flows[_LANGUAGE])
        + draws * _attention(model.language, suffix, prefix) * (1 + flows[_EXPERT] + flows[_LANGUAGE])
        + draws * _attention(model.language, suffix, suffix) * (1 + 2 * flows[_EXPERT])
    )
    return float(batch * (products + attention))


def _flows(model: ModelConfig, frozen: Collection[str]) -> dict[str, bool]:
    """Whether gradients flow back through a part: when something in it or before it trains."""
    trained = {_part(path) for path in param_shapes(model) if path not in frozen}
    vision = _VISION in trained
    language = vision or _LANGUAGE in trained
    return {_VISION: vision, _LANGUAGE: language, _EXPERT: language or bool(trained & {_EXPERT, _BETWEEN})}


def _part(path: str) -> str:
    if path.startswith("PaliGemma/img/"):
        return _VISION
    if path.startswith("PaliGemma/llm/"):
        return _EXPERT if any(name.endswith("_1") for name in path.split("/")) else _LANGUAGE
    return _BETWEEN


def _weights(model: ModelConfig) -> list[tuple[str, str, int]]:
    """(path, part, size) of the weights that every token of a part is multiplied by; what is left out is small."""
    return [
        (path, _part(path), math.prod(leaf.shape))
        for path, leaf in param_shapes(model).items()
        if path.startswith(("PaliGemma/llm/layers/attn/", "PaliGemma/llm/layers/mlp"))
        or (path.startswith("PaliGemma/img/") and path.endswith("/kernel"))
    ]


def _attention(config: GemmaConfig, queries: int, keys: int) -> int:
    """Scores and their sums over values, forward."""
    return 4 * config.depth * config.heads * config.head_dim * queries * keys
