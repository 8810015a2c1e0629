"""The form that weights take on the device that serves: unrolled layers, adaRMS already applied to its fixed times."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Sharding
from jaxtyping import Array, Float, PyTree

from training.pi05.model.config import ModelConfig
from training.pi05.model.flow import denoising_times
from training.pi05.model.modulation import Modulations, modulations_at
from training.pi05.model.params import unflatten
from training.pi05.model.pi import PiModel

__all__ = ["ServingParams", "serving_params", "unroll"]

_STACKED = re.compile(r"(.*/(?:layers|encoderblock))/(.*)")
_OF_TIME = re.compile(r"time_mlp_(in|out)/.*|.*/(pre_attention_norm|pre_ffw_norm|final_norm)_1/Dense_0/.*")


class ServingParams(flax.struct.PyTreeNode):
    """All arrays that `denoise` needs, with `PiModel(config, unrolled=True)`."""

    params: PyTree[Array]
    modulations: Modulations | None
    """At the policy's denoising times; None for Pi0."""


def unroll(flat: Mapping[str, Array]) -> dict[str, Array]:
    """Each stacked leaf `layers/…` (depth, …) as the leaves `layers_0/…`, `layers_1/…` and so on."""
    unrolled = {}
    for path, leaf in flat.items():
        if stacked := _STACKED.fullmatch(path):
            for index in range(leaf.shape[0]):
                unrolled[f"{stacked[1]}_{index}/{stacked[2]}"] = leaf[index]
        else:
            unrolled[path] = leaf
    return unrolled


def serving_params(
    config: ModelConfig,
    flat: Mapping[str, Array],
    steps: int,
    placement: Callable[[str, tuple[int, ...]], Sharding] | None = None,
) -> ServingParams:
    """Bring a flat parameter tree, already in the compute type, to the form that serves.

    Args:
        steps: Euler steps from noise to actions.
        placement: where each unrolled leaf goes, by its path and shape; None is the default device.
    """
    modulations = _modulations(config, flat, steps) if config.pi05 else None
    needed = unroll({path: leaf for path, leaf in flat.items() if not (config.pi05 and _OF_TIME.fullmatch(path))})
    if placement is not None:
        needed = {path: jax.device_put(leaf, placement(path, leaf.shape)) for path, leaf in needed.items()}
        modulations = jax.tree.map(lambda leaf: jax.device_put(leaf, placement("", ())), modulations)
    return ServingParams(jax.device_put(unflatten(needed)), modulations)


def _modulations(config: ModelConfig, flat: Mapping[str, Array], steps: int) -> Modulations:
    params = unflatten({path: leaf for path, leaf in flat.items() if _OF_TIME.fullmatch(path)})
    return _compute_modulations(config, params, jnp.asarray(denoising_times(steps)))


@functools.partial(jax.jit, static_argnums=0)
def _compute_modulations(config: ModelConfig, params: PyTree[Array], times: Float[Array, "steps"]) -> Modulations:
    model = PiModel(config)
    conditioning = model.apply({"params": params}, times, method=model.conditioning)
    return modulations_at(params["PaliGemma"]["llm"], conditioning, jnp.dtype(config.dtype))
