"""`train merge`: a LoRA step becomes a plain one that acts the same."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest

from policy_protocol.spec import CheckpointId
from training.pi05.checkpoint.merge import merge_checkpoint
from training.pi05.checkpoint.step_directory import CheckpointInvalid, read_assets
from training.pi05.checkpoint.weights import as_saved, read_params
from training.pi05.model.lora import is_lora, merge_lora
from training.pi05.model.params import check_params, count_params, flatten, param_shapes, unflatten


@pytest.fixture(scope="module")
def lora_step(tmp_path_factory, tiny_pi05, tiny_steps, libero_spec, tiny_tokenizer):
    """tiny_pi05 with random LoRA leaves of rank 2 in its expert, and the assets of a policy of ours."""
    step = tmp_path_factory.mktemp("lora") / "99"
    expert = dataclasses.replace(tiny_pi05.config.expert, lora_rank=2)
    shapes = param_shapes(dataclasses.replace(tiny_pi05.config, expert=expert))
    draw = np.random.default_rng(0)
    lora = {path: draw.normal(size=leaf.shape).astype(np.float32) for path, leaf in shapes.items() if is_lora(path)}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(step / "params", as_saved(unflatten({**flatten(tiny_pi05.params), **lora})))
    shutil.copytree(tiny_steps["pi05"] / "assets", step / "assets")
    origin = CheckpointId("tiny_lora", "first", 99, run_id="0badcafe")
    policy = dataclasses.replace(libero_spec.policy, parameter_count=count_params(shapes), checkpoint=origin)
    (step / "assets" / "policy_spec.json").write_text(dataclasses.replace(libero_spec, policy=policy).to_json())
    shutil.copy(tiny_tokenizer, step / "assets" / "tokenizer.model")
    (step / "assets" / "experiment.json").write_text('{"model": {"expert": {"lora_rank": 2}}}')
    return step


@pytest.fixture(scope="module")
def merged(lora_step, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged") / "runs" / "99"
    assert merge_checkpoint(lora_step, out) == 10
    return out


def refusal(*arguments):
    with pytest.raises(CheckpointInvalid) as error:
        merge_checkpoint(*arguments)
    return error.value.message


def test_the_merged_step_is_a_plain_model(merged, tiny_pi05):
    check_params(read_params(merged), tiny_pi05.config, str(merged))


def test_each_weight_holds_its_lora_leaves(merged, lora_step, tiny_pi05):
    params, expected = read_params(merged), merge_lora(read_params(lora_step))
    for path, leaf in params.items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-6)
    changed = {path for path, leaf in flatten(tiny_pi05.params).items() if np.any(params[path] != leaf)}
    assert changed == {
        f"PaliGemma/llm/layers/{name}"
        for name in (
            *("attn/q_einsum_1/w", "attn/kv_einsum_1/w", "attn/attn_vec_einsum_1/w"),
            *("mlp_1/gating_einsum", "mlp_1/linear"),
        )
    }


def test_the_merged_step_has_openpis_layout(merged, tiny_steps):
    ours, theirs = (json.loads((step / "params" / "_METADATA").read_text()) for step in (merged, tiny_steps["pi05"]))
    assert ours["tree_metadata"] == theirs["tree_metadata"]
    assert {"_CHECKPOINT_METADATA", "params", "assets"} == {child.name for child in merged.iterdir()} - {
        "commit_success.txt"
    }


def test_the_assets_are_copied_and_the_spec_counts_the_merged_parameters(merged, lora_step, tiny_pi05):
    before, after = read_assets(lora_step), read_assets(merged)
    assert after.spec.policy.parameter_count == count_params(flatten(tiny_pi05.params))
    same = {name: getattr(before.spec.policy, name) for name in ("parameter_count", "checkpoint")}
    assert dataclasses.replace(after.spec, policy=dataclasses.replace(after.spec.policy, **same)) == before.spec
    assert after.tokenizer.model == before.tokenizer.model
    np.testing.assert_array_equal(after.norm_stats["actions"].q99, before.norm_stats["actions"].q99)


def test_a_merged_policy_is_told_from_the_one_that_was_trained(merged):
    origin = read_assets(merged).spec.policy.checkpoint
    assert (str(origin), origin.run_id) == ("tiny_lora/first-merged/99", "0badcafe-merged")
    assert not (merged / "assets" / "experiment.json").exists()  # its model has LoRA leaves


def test_a_plain_step_has_nothing_to_merge(tiny_steps, tmp_path):
    assert refusal(tiny_steps["pi05"], tmp_path / "out") == (
        f"{tiny_steps['pi05']} holds no LoRA leaves, so there is nothing to merge: use it as it is."
    )
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(lora_step, tmp_path):
    assert refusal(lora_step, tmp_path) == f"{tmp_path} exists. Name a folder that does not, or delete it first."
