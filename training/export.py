"""A checkpoint as it is handed on: the weights that are served and all that a policy needs, a fraction of its size."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from policy_protocol.spec import PolicySpec
from training.pi05.checkpoint.assets_item import AssetsHandler, SaveAssets
from training.pi05.checkpoint.finite import non_finite
from training.pi05.checkpoint.pytorch import read_safetensors
from training.pi05.checkpoint.pytorch_files import is_safetensors
from training.pi05.checkpoint.step_directory import (
    EXPERIMENT_FILE,
    Assets,
    CheckpointInvalid,
    find_step,
    read_assets,
    write_assets,
)
from training.pi05.checkpoint.weights import as_saved, read_params, stored_shapes
from training.pi05.listing import listed
from training.pi05.model.config import without_lora
from training.pi05.model.lora import is_lora, merge_lora
from training.pi05.model.params import check_params, config_of_params, count_params, unflatten

__all__ = ["Exported", "export_checkpoint"]

_COMMITTED = "commit_success.txt"
"""That it is there says all; orbax writes this machine's path into it, which is nobody else's business."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    parameters: int
    merged: int
    """LoRA leaves that were added into the weights."""
    size_before: int
    """Bytes of the checkpoint, its train state included."""
    size: int
    """Bytes of the export."""


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    spec: PolicySpec | str | os.PathLike[str] | None = None,
    tokenizer: str | None = None,
) -> Exported:
    """Write a step directory with the served weights alone, LoRA merged in float32, then everything in bfloat16.

    openpi serves in bfloat16, so there the export acts exactly as the checkpoint does; in float32 it is rounded. Its
    spec names the run with `-bf16` behind it.

    Args:
        checkpoint: a step directory, ours, openpi's or PyTorch's.
        out: the step directory to write, whole or not at all.
        spec: for a checkpoint without one, as in `read_assets`.
        tokenizer: likewise.

    Raises:
        CheckpointInvalid: `checkpoint` is not usable, lacks a part of a policy (names the flag), holds NaN, `out`
            exists or there is no room for it.
        ParamsMismatch: the weights are not those of the model that the spec describes.
    """
    step = find_step(checkpoint)
    if out.exists():
        raise CheckpointInvalid(f"{out} exists. Name a folder that does not, or delete it first.")
    assets = read_assets(step, spec=spec, tokenizer=tokenizer)
    flat, merged = _weights(step)
    _check(flat, assets, step)
    _check_room(out, sum(leaf.nbytes for leaf in flat.values()))
    _save(out, flat, _exported(assets, count_params(flat)), None if merged else step / "assets" / EXPERIMENT_FILE)
    return Exported(count_params(flat), merged, _size(step), _size(out))


def _weights(step: Path) -> tuple[Mapping[str, np.ndarray], int]:
    """Plain weights in bfloat16, and the number of LoRA leaves that they had."""
    if is_safetensors(step):
        return {path: np.asarray(leaf) for path, leaf in read_safetensors(step, jnp.bfloat16).items()}, 0
    factors = sum(map(is_lora, stored_shapes(step / "params")))
    flat = read_params(step, jnp.float32 if factors else jnp.bfloat16)
    if factors:
        flat = {path: np.asarray(leaf).astype(jnp.bfloat16) for path, leaf in merge_lora(flat).items()}
    return flat, factors


def _check(flat: Mapping[str, np.ndarray], assets: Assets, step: Path) -> None:
    policy, prompt = assets.spec.policy, assets.spec.observation.prompt
    model = without_lora(config_of_params(flat, policy.action_horizon, prompt.max_tokens, jnp.dtype(jnp.bfloat16)))
    if model.family != policy.family:
        raise CheckpointInvalid(f"{step} holds {model.family} weights but its spec says {policy.family}.")
    check_params(flat, model, str(step))
    if damaged := non_finite(flat):
        raise CheckpointInvalid(f"The weights in {step} hold NaN or infinity in {listed(damaged)}. Use another step.")


def _check_room(out: Path, needed: int) -> None:
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if (free := shutil.disk_usage(parent).free) < needed:
        raise CheckpointInvalid(
            f"The export takes {needed / 1e9:.1f} GB but {parent} has {free / 1e9:.1f} GB left. "
            "Make room or choose another folder."
        )


def _exported(assets: Assets, parameters: int) -> Assets:
    policy = assets.spec.policy
    origin = policy.checkpoint
    run_id = f"{origin.run_id}-bf16" if origin.run_id else ""
    checkpoint = dataclasses.replace(origin, run=f"{origin.run}-bf16", run_id=run_id)
    policy = dataclasses.replace(policy, parameter_count=parameters, checkpoint=checkpoint)
    return dataclasses.replace(assets, spec=dataclasses.replace(assets.spec, policy=policy))


def _save(out: Path, flat: Mapping[str, np.ndarray], assets: Assets, experiment: Path | None) -> None:
    def write(folder: Path) -> None:
        write_assets(folder, assets)
        if experiment is not None and experiment.exists():
            shutil.copy(experiment, folder / EXPERIMENT_FILE)

    handlers = {"params": ocp.PyTreeCheckpointHandler(), "assets": AssetsHandler()}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers)) as checkpointer:
        host = jax.local_devices(backend="cpu")[0]  # as jax arrays, which openpi's are recorded as
        params = ocp.args.PyTreeSave(as_saved(unflatten(jax.device_put(dict(flat), host))))
        checkpointer.save(out.absolute(), ocp.args.Composite(params=params, assets=SaveAssets(write)))
    for mark in out.rglob(_COMMITTED):
        mark.write_text("Saved whole.\n", encoding="utf-8")


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
