"""One inference in openpi's shape and in ours, and every step between: what a benchmark takes apart.

openpi runs three cameras (an absent one black and masked), the prompt padded to its full length, the vision tower once
a camera, scanned layers, and adaRMS's modulations anew in every denoising step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from training.pi05.model.config import SLOTS, ModelConfig
from training.pi05.model.flow import denoise
from training.pi05.model.params import unflatten
from training.pi05.model.pi import ModelInput, PiModel, Prefix
from training.pi05.model.serving import ServingParams, serving_params, unroll

__all__ = ["STEPS", "VARIANTS", "Variant", "inference", "random_inputs"]

STEPS = 10
"""Denoising steps."""


@dataclass(frozen=True)
class Variant:
    """How an inference is done. Every variant gives the same actions for the same cameras and prompt."""

    name: str
    cameras: int = len(SLOTS)
    short_prompt: bool = False
    """Pad the prompt to the smallest bucket instead of the model's longest."""
    one_batch: bool = False
    """All cameras through the vision tower at once."""
    unrolled: bool = False
    """Layers one by one: the last prefix layer computes keys and values only."""
    modulated: bool = False
    """adaRMS's modulations computed at load."""
    donated: bool = False
    """The noise's buffer becomes the actions'."""


VARIANTS = (
    Variant("openpi's shape"),
    Variant("only the cameras that exist", 2),
    Variant("… and a short prompt", 2, True),
    Variant("… and one batch of cameras", 2, True, True),
    Variant("… and the last layer's keys and values only", 2, True, True, True),
    Variant("… and modulations computed at load", 2, True, True, True, True),
    Variant("… and a donated buffer: ours", 2, True, True, True, True, True),
)
"""Each adds one saving to the one before."""


def random_inputs(config: ModelConfig, variant: Variant, batch: int, prompt: int, bucket: int) -> ModelInput:
    """Two real cameras and `prompt` tokens, padded as the variant pads. The same numbers for all variants."""
    draw, side = np.random.default_rng(0), config.vision.image_size
    images = {slot: draw.integers(0, 256, (batch, side, side, 3), np.uint8) for slot in SLOTS[:2]}
    images[SLOTS[2]] = np.zeros_like(images[SLOTS[0]])
    length = bucket if variant.short_prompt else config.max_token_len
    tokens = np.zeros((batch, length), np.int32)
    tokens[:, :prompt] = draw.integers(1, config.vocabulary, (batch, prompt))
    slots = SLOTS[: variant.cameras]
    return ModelInput(
        images={slot: images[slot] for slot in slots},
        image_masks={slot: np.full(batch, slot != SLOTS[2]) for slot in slots},
        tokens=tokens,
        token_mask=np.broadcast_to(np.arange(length) < prompt, tokens.shape),
        state=draw.standard_normal((batch, config.action_dim)).astype(np.float32),
    )


def inference(
    config: ModelConfig, flat: Mapping[str, Array], variant: Variant
) -> Callable[[ModelInput, Float[np.ndarray, "batch action_horizon action_dim"]], np.ndarray]:
    """The compiled inference of a variant: inputs and noise on the host to actions on the host."""
    network: Any = PiModel(config, unrolled=variant.unrolled)
    if not variant.one_batch:
        network = SimpleNamespace(apply=network.apply, prefill=_prefill_camera_by_camera, velocity=network.velocity)
    weights = _weights(config, flat, variant)

    def run(weights: ServingParams, inputs: ModelInput, noise: Array) -> Array:
        return denoise(network, weights.params, inputs, noise, STEPS, weights.modulations)

    compiled = jax.jit(run, donate_argnums=2 if variant.donated else ())
    return lambda inputs, noise: np.asarray(compiled(weights, inputs, jnp.asarray(noise)))


def _weights(config: ModelConfig, flat: Mapping[str, Array], variant: Variant) -> ServingParams:
    if variant.modulated:
        return serving_params(config, flat, STEPS)
    return ServingParams(jax.device_put(unflatten(unroll(flat) if variant.unrolled else flat)), None)


def _prefill_camera_by_camera(module: PiModel, inputs: ModelInput) -> Prefix:
    """`PiModel.prefill` with the vision tower run once a camera."""
    slots, parts = list(inputs.images), []
    for slot in slots:
        prompt = slice(None) if slot == slots[-1] else slice(0)  # the prompt comes after the last camera
        one = {"images": {slot: inputs.images[slot]}, "image_masks": {slot: inputs.image_masks[slot]}}
        one |= {"tokens": inputs.tokens[:, prompt], "token_mask": inputs.token_mask[:, prompt]}
        parts.append(module.embed_prefix(inputs.replace(**one)))
    tokens, valid = (jnp.concatenate(pieces, axis=1) for pieces in zip(*parts, strict=True))
    positions = jnp.cumsum(valid, axis=1) - 1
    _, cache = module.PaliGemma.llm([tokens, None], positions, valid[:, None, :])
    return Prefix(cache, valid)
