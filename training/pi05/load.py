"""From a step directory to a policy: weights in whichever format it holds, checked against everything beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from policy_protocol.spec import PolicySpec
from training.pi05.checkpoint.finite import non_finite
from training.pi05.checkpoint.pytorch import is_safetensors, read_safetensors
from training.pi05.checkpoint.step_directory import Assets, CheckpointInvalid, find_step, read_assets
from training.pi05.checkpoint.weights import read_params, stored_shapes
from training.pi05.download import cached_directory
from training.pi05.listing import listed
from training.pi05.model.attention import AttentionKernel
from training.pi05.model.config import ModelConfig, without_lora
from training.pi05.model.lora import is_lora, merge_lora
from training.pi05.model.params import check_params, config_of_params
from training.pi05.placement import Shardings, cut_over, whole_on
from training.pi05.policy import Policy
from training.pi05.transforms.tokenizer import check_vocabulary

__all__ = ["load_policy", "reload_policy"]


def load_policy(
    checkpoint: str | os.PathLike[str],
    *,
    spec: PolicySpec | str | os.PathLike[str] | None = None,
    tokenizer: str | None = None,
    dtype: str | None = None,
    attention: AttentionKernel = "plain",
    devices: Sequence[jax.Device] | None = None,
    shard: bool = False,
) -> Policy:
    """Load a step directory as a policy in this process: `load_policy("runs/…/999")(observation).actions`.

    Args:
        checkpoint: the step directory, with orbax `params/` or PyTorch's `model.safetensors`; a URL of one (`gs://…`)
            is downloaded into the cache.
        spec: stands in for `assets/policy_spec.json` (stock openpi checkpoints have none): a spec, its file, or the
            name of one of openpi's released policies, such as `pi05_libero`.
        tokenizer: path or URL of a sentencepiece model, for checkpoints without one.
        dtype: `bfloat16` or `float32` for weights and compute; None takes bfloat16 on an accelerator, as openpi serves,
            and float32 on a CPU, where it is faster.
        attention: how attention is computed, see `Policy`.
        devices: each gets a copy of the weights; None takes the first device.
        shard: cut the weights over the devices instead, for a model that does not fit into one.

    Raises:
        CheckpointInvalid, ParamsMismatch, SpecInvalid, NormStatsInvalid: says what is wrong with which file.
    """
    source = os.fspath(checkpoint)
    step = find_step(cached_directory(source, without=("train_state",)) if "://" in source else source)
    assets = read_assets(step, spec=spec, tokenizer=tokenizer)
    compute = jnp.dtype(dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16"))
    devices = devices or jax.devices()[:1]
    placements = [cut_over(devices)] if shard else [whole_on(device) for device in devices]
    reading = _stacked(placements[0]) if shard else None
    model, flat = _read_weights(step, assets, compute, reading)
    check_vocabulary(assets.tokenizer, model.vocabulary)
    return Policy(model, flat, assets, attention, placements, reading)


def reload_policy(
    policy: Policy,
    step: Path,
    *,
    spec: PolicySpec | str | os.PathLike[str] | None = None,
    tokenizer: str | None = None,
) -> None:
    """Put the weights of another step of the same run into a policy, in place.

    Args:
        spec, tokenizer: as the policy was loaded with.

    Raises:
        CheckpointInvalid, ParamsMismatch: the step is damaged, or of another model, spec or other norm stats; the
            policy keeps what it has.
    """
    assets = read_assets(step, spec=spec, tokenizer=tokenizer)
    if other := _other_fields(policy.spec, assets.spec):
        raise CheckpointInvalid(
            f"{step} is another policy than the one that is served: its spec differs in {', '.join(other)}. "
            "Start a new server."
        )
    _, flat = _read_weights(step, assets, jnp.dtype(policy.model.dtype), policy.reading_placement)
    check_params(flat, policy.model, str(step))
    before, after = (spec.policy.norm_stats_hash for spec in (policy.spec, assets.spec))
    if before != after:
        raise CheckpointInvalid(f"{step} has other norm stats than the checkpoint that is served; start a new server.")
    policy.replace_weights(flat, assets.spec)


def _other_fields(before: PolicySpec, after: PolicySpec) -> list[str]:
    """Sections in which a step's spec says other things than its number, its weights' facts and the versions."""
    same = replace(
        after.policy,
        checkpoint=before.policy.checkpoint,
        versions=before.policy.versions,
        norm_stats_hash=before.policy.norm_stats_hash,
    )
    after = replace(after, policy=same)
    return [field.name for field in fields(after) if getattr(before, field.name) != getattr(after, field.name)]


def _read_weights(
    step: Path, assets: Assets, dtype: Any, sharding: Shardings | None
) -> tuple[ModelConfig, Mapping[str, Array]]:
    """The model and its plain weights in the compute type, all of them finite.

    LoRA's factors are added in float32, whatever is served. Names and shapes are checked before orbax reads a byte.
    """
    if is_safetensors(step):
        flat: Mapping[str, Array] = read_safetensors(step, dtype)
        model = _checked_model(flat, assets, step, dtype)
    else:
        shapes = stored_shapes(step / "params")
        model = _checked_model(shapes, assets, step, dtype)
        factors = any(map(is_lora, shapes))
        flat = read_params(step, np.float32 if factors else dtype, sharding)
        if factors:
            flat = {path: leaf.astype(dtype) for path, leaf in merge_lora(flat).items()}
    if damaged := non_finite(flat):
        raise CheckpointInvalid(f"The weights in {step} hold NaN or infinity in {listed(damaged)}. Use another step.")
    return without_lora(model), flat


def _stacked(placement: Shardings) -> Shardings:
    """For leaves as checkpoints hold them: a stack of layers is never cut between its layers."""

    def place(path: str, shape: tuple[int, ...]) -> jax.sharding.Sharding:
        if "/layers/" not in path and "/encoderblock/" not in path:
            return placement(path, shape)
        one = placement(path, shape[1:])
        assert isinstance(one, jax.sharding.NamedSharding)
        return jax.sharding.NamedSharding(one.mesh, jax.sharding.PartitionSpec(None, *one.spec))

    return place


def _checked_model(flat: Mapping[str, Any], assets: Assets, step: Path, dtype: Any) -> ModelConfig:
    """The model that leaves of these names and shapes are of."""
    policy, prompt = assets.spec.policy, assets.spec.observation.prompt
    model = config_of_params(flat, policy.action_horizon, prompt.max_tokens, dtype)
    if model.family != policy.family:
        raise CheckpointInvalid(f"{step} holds {model.family} weights but its spec says {policy.family}.")
    check_params(flat, model, str(step))
    return model
