"""The least time that an inference can take on a device: its arithmetic at peak, or its bytes at full bandwidth."""

from __future__ import annotations

from dataclasses import dataclass

from training.pi05.model.config import GemmaConfig, ModelConfig

__all__ = ["DEVICES", "Device", "Work", "inference_work"]


@dataclass(frozen=True)
class Device:
    """Peak figures of a card, from its data sheet (dense, no sparsity)."""

    flops: float
    """bfloat16 operations a second."""
    bandwidth: float
    """Bytes a second."""


DEVICES = {
    "H100": Device(989e12, 3.35e12),
    "H200": Device(989e12, 4.8e12),
    "A100": Device(312e12, 2.04e12),
    "L40S": Device(362e12, 0.864e12),
    "4090": Device(165e12, 1.01e12),
}
"""By a part of the name that the driver reports."""


@dataclass(frozen=True)
class Work:
    """One phase of an inference."""

    flops: float
    bytes: float
    """Weights and cached keys and values read, once each."""

    def seconds(self, device: Device) -> float:
        """Whichever of the two takes longer."""
        return max(self.flops / device.flops, self.bytes / device.bandwidth)


def inference_work(config: ModelConfig, batch: int, cameras: int, prompt: int, steps: int) -> tuple[Work, ...]:
    """Vision, prefix and each denoising step of ours: last prefix layer keys and values only, no adaRMS arithmetic."""
    vision, image_tokens = config.vision, config.vision.tokens
    images = batch * cameras
    block = 4 * vision.width**2 + 2 * vision.width * vision.mlp_width
    attention = 4 * image_tokens**2 * vision.width
    weights = vision.depth * block + vision.width * config.language.width + 3 * vision.patch_size**2 * vision.width
    tower = Work(images * (2 * image_tokens * weights + vision.depth * attention), 2 * weights)
    prefix_tokens = cameras * image_tokens + prompt
    prefix = _transformer(config.language, batch, prefix_tokens, prefix_tokens, config.language.depth - 1)
    suffix = config.action_horizon + (0 if config.pi05 else 1)
    expert = _transformer(config.expert, batch, suffix, prefix_tokens + suffix, config.expert.depth)
    return (tower, prefix, *[expert] * steps)


def _transformer(config: GemmaConfig, batch: int, queries: int, keys: int, layers: int) -> Work:
    heads, kv_heads, head_dim = config.heads, config.kv_heads, config.head_dim
    weights = 2 * config.width * head_dim * (heads + kv_heads) + 3 * config.width * config.mlp_width
    attention = 4 * queries * keys * heads * head_dim
    cache = 2 * keys * kv_heads * head_dim
    return Work(layers * batch * (2 * queries * weights + attention), 2 * layers * (weights + batch * cache))
