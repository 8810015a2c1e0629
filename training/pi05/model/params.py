"""The parameter tree: which leaves a model has, how large a model a tree belongs to, and where the two disagree."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, PRNGKeyArray, PyTree

from policy_protocol.errors import ChunkwireError
from policy_protocol.spec import Family
from training.pi05.listing import counted
from training.pi05.model.config import SLOTS, GemmaConfig, ModelConfig, SigLIPConfig
from training.pi05.model.lora import is_lora
from training.pi05.model.pi import ModelInput, PiModel

__all__ = [
    "ParamsMismatch",
    "check_params",
    "config_of_params",
    "count_params",
    "flatten",
    "init_params",
    "param_shapes",
    "unflatten",
]

Flat: TypeAlias = Mapping[str, Any]
"""`PaliGemma/llm/final_norm/scale` -> array (or anything with a shape)."""


_OWN_PARTS: Mapping[Family, tuple[str, ...]] = {
    "pi0": ("state_proj", "action_time_mlp_in", "action_time_mlp_out"),
    "pi05": ("time_mlp_in", "time_mlp_out"),
}
"""Projections that only the one family has."""


class ParamsMismatch(ChunkwireError):
    """A parameter tree that does not belong to the model; the message lists the leaves."""

    code = "params_mismatch"


def flatten(tree: PyTree[Any]) -> dict[str, Any]:
    """A nested tree as one map with slash-separated paths."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(flat: Flat) -> PyTree[Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def init_params(config: ModelConfig, key: PRNGKeyArray) -> PyTree[Array]:
    """Fresh float32 parameters. Their output ignores image and time until trained: those weights start at zero."""
    slot, side = SLOTS[0], config.vision.image_size
    inputs = ModelInput(
        images={slot: jnp.zeros((1, side, side, 3), jnp.uint8)},
        image_masks={slot: jnp.ones(1, bool)},
        tokens=jnp.zeros((1, 1), jnp.int32),
        token_mask=jnp.ones((1, 1), bool),
        state=jnp.zeros((1, config.action_dim)),
    )
    actions = jnp.zeros((1, config.action_horizon, config.action_dim))
    init = jax.jit(PiModel(config).init)  # one program: op by op, half a minute goes into compiling each of them
    return init(key, inputs, actions, jnp.ones(1))["params"]


def param_shapes(config: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape of every leaf, computed without memory."""
    return dict(_param_shapes(config))


@functools.lru_cache(maxsize=16)  # tracing a model takes a second, and one start asks several times
def _param_shapes(config: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
    return flatten(jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0)))


def count_params(flat: Flat) -> int:
    """Number of parameters."""
    return sum(math.prod(leaf.shape) for leaf in flat.values())


def check_params(flat: Flat, config: ModelConfig, source: str) -> None:
    """Compare a tree with the model, leaf by leaf.

    Raises:
        ParamsMismatch: leaves are missing, unexpected or of another shape; says what the tree is instead, when it is
            known, and lists up to eight of each kind.
    """
    expected = param_shapes(config)
    wrong = [
        f"{path} is {tuple(flat[path].shape)}, expected {expected[path].shape}"
        for path in sorted(expected.keys() & flat.keys())
        if tuple(flat[path].shape) != expected[path].shape
    ]
    lines = [
        *_differences(flat, expected, config),
        *counted("missing", sorted(expected.keys() - flat.keys())),
        *counted("unexpected", sorted(flat.keys() - expected.keys())),
        *counted("of the wrong shape", wrong),
    ]
    if lines:
        raise ParamsMismatch(
            f"The parameters in {source} are not those of this {config.family} model. " + " ".join(lines)
        )


def _differences(flat: Flat, expected: Flat, config: ModelConfig) -> list[str]:
    """What kind of tree this is, where its leaves tell."""
    said = []
    if any(map(is_lora, flat)) and not any(map(is_lora, expected)):
        said.append("It holds LoRA leaves: merge them first with `train merge CHECKPOINT OUT`.")
    if not any(map(is_lora, flat)) and any(map(is_lora, expected)):
        said.append("The model has LoRA leaves and it holds none.")
    for family, parts in _OWN_PARTS.items():
        held = [part for part in parts if f"{part}/kernel" in flat]
        if held and family != config.family:
            said.append(f"It holds {family} weights ({', '.join(held)}).")
    return said


def config_of_params(flat: Flat, action_horizon: int, max_token_len: int, dtype: Any) -> ModelConfig:
    """The model that a parameter tree belongs to: every size is in the shapes but the two given.

    Raises:
        ParamsMismatch: the tree lacks a leaf that every Pi0 model has, or its shapes are no model's.
        ValueError: no model computes in that type.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in flat.items()}
    try:
        family: Family = "pi05" if "time_mlp_in/kernel" in shapes else "pi0"
        model = ModelConfig(
            family,
            _vision(shapes),
            _gemma(shapes, ""),
            _gemma(shapes, "_1"),
            vocabulary=shapes["PaliGemma/llm/embedder/input_embedding"][0],
            action_dim=shapes["action_out_proj/kernel"][1],
            action_horizon=action_horizon,
            max_token_len=max_token_len,
        )
    except KeyError as error:
        raise ParamsMismatch(
            f"These are not the parameters of a Pi0 or Pi0.5 model: the leaf {error} is missing."
        ) from error
    except (ValueError, IndexError) as error:
        raise ParamsMismatch(
            f"These are not the parameters of a Pi0 or Pi0.5 model: their shapes give no sizes ({error})."
        ) from error
    return dataclasses.replace(model, dtype=np.dtype(dtype).name)


def _vision(shapes: Mapping[str, tuple[int, ...]]) -> SigLIPConfig:
    patch, _, _, width = shapes["PaliGemma/img/embedding/kernel"]
    side = math.isqrt(shapes["PaliGemma/img/pos_embedding"][1])
    block = "PaliGemma/img/Transformer/encoderblock"
    depth, _, heads, _ = shapes[f"{block}/MultiHeadDotProductAttention_0/query/kernel"]
    return SigLIPConfig(
        image_size=side * patch,
        patch_size=patch,
        width=width,
        depth=depth,
        mlp_width=shapes[f"{block}/MlpBlock_0/Dense_0/kernel"][2],
        heads=heads,
    )


def _gemma(shapes: Mapping[str, tuple[int, ...]], suffix: str) -> GemmaConfig:
    layers = "PaliGemma/llm/layers"
    depth, heads, head_dim, width = shapes[f"{layers}/attn/attn_vec_einsum{suffix}/w"]
    fused = f"{layers}/attn/qkv_einsum{suffix}/w" in shapes
    return GemmaConfig(
        width=width,
        mlp_width=shapes[f"{layers}/mlp{suffix}/gating_einsum"][3],
        depth=depth,
        heads=heads,
        kv_heads=heads if fused else shapes[f"{layers}/attn/kv_einsum{suffix}/w"][2],
        head_dim=head_dim,
        lora_rank=shapes.get(f"{layers}/attn/attn_vec_einsum{suffix}/lora_a", (0,))[-1],
    )
