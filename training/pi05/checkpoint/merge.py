"""A plain step directory from a LoRA one."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from policy_protocol.spec import CheckpointId, PolicySpec
from training.pi05.checkpoint.assets_item import AssetsHandler, SaveAssets
from training.pi05.checkpoint.step_directory import EXPERIMENT_FILE, SPEC_FILE, CheckpointInvalid, find_step
from training.pi05.checkpoint.weights import as_saved, read_params
from training.pi05.model.lora import is_lora, merge_lora
from training.pi05.model.params import count_params, unflatten

__all__ = ["merge_checkpoint"]


def merge_checkpoint(checkpoint: Path, out: Path) -> int:
    """Write a step directory with the LoRA leaves merged into the weights, in float32, and the assets copied.

    It has `params` and `assets` but no `train_state` (the optimizer's moments are those of the LoRA leaves) and no
    `experiment.json`, whose model has them. Its spec names the run with `-merged` behind it: bfloat16 rounds the two
    policies differently.

    Returns:
        How many LoRA leaves were merged.

    Raises:
        CheckpointInvalid: `checkpoint` is no step directory or holds no LoRA leaf, or `out` exists.
    """
    step = find_step(checkpoint)
    if out.exists():
        raise CheckpointInvalid(f"{out} exists. Name a folder that does not, or delete it first.")
    host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    flat = read_params(step, jnp.float32, lambda path, shape: host)  # jax arrays, as which openpi's are recorded
    lora = sum(map(is_lora, flat))
    if not lora:
        raise CheckpointInvalid(f"{step} holds no LoRA leaves, so there is nothing to merge: use it as it is.")
    merged = merge_lora(flat)
    del flat
    handlers = {"params": ocp.PyTreeCheckpointHandler(), "assets": AssetsHandler()}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers)) as checkpointer:
        items = ocp.args.Composite(
            params=ocp.args.PyTreeSave(as_saved(unflatten(merged))),
            assets=SaveAssets(lambda folder: _copy_assets(step / "assets", folder, count_params(merged))),
        )
        checkpointer.save(out.absolute(), items)
    return lora


def _copy_assets(source: Path, folder: Path, parameters: int) -> None:
    if not source.is_dir():
        return
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(EXPERIMENT_FILE))
    spec = folder / SPEC_FILE
    if spec.exists():
        plain = PolicySpec.read(spec)
        policy = dataclasses.replace(
            plain.policy, parameter_count=parameters, checkpoint=_merged(plain.policy.checkpoint)
        )
        spec.write_text(dataclasses.replace(plain, policy=policy).to_json(), encoding="utf-8")


def _merged(origin: CheckpointId) -> CheckpointId:
    run_id = f"{origin.run_id}-merged" if origin.run_id else ""
    return dataclasses.replace(origin, run=f"{origin.run}-merged", run_id=run_id)
