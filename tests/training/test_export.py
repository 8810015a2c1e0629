"""`train export`: a step of which only the policy is left, and it acts as before."""

from __future__ import annotations

import dataclasses
import shutil
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from policy_protocol.spec import CheckpointId
from training.cli import main
from training.export import export_checkpoint
from training.pi05.checkpoint.step_directory import CheckpointInvalid, read_assets
from training.pi05.checkpoint.weights import as_saved, read_params
from training.pi05.load import load_policy
from training.pi05.model.lora import is_lora, merge_lora
from training.pi05.model.params import count_params, flatten, param_shapes, unflatten


def write_step(step, flat, openpis, spec, tokenizer):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(step / "params", as_saved(unflatten(flat)))
    shutil.copytree(openpis / "assets", step / "assets")
    origin = CheckpointId("tiny", "first", 99, run_id="0badcafe")
    policy = dataclasses.replace(spec.policy, parameter_count=count_params(flat), checkpoint=origin)
    (step / "assets" / "policy_spec.json").write_text(dataclasses.replace(spec, policy=policy).to_json())
    shutil.copy(tokenizer, step / "assets" / "tokenizer.model")
    (step / "assets" / "experiment.json").write_text("{}")
    (step / "train_state").mkdir()
    (step / "train_state" / "moments").write_bytes(b"\0" * 1_000_000)
    return step


@pytest.fixture(scope="module")
def plain_step(tmp_path_factory, tiny_pi05, tiny_steps, libero_spec, tiny_tokenizer):
    """tiny_pi05 as a step of a run of ours."""
    step = tmp_path_factory.mktemp("plain") / "99"
    return write_step(step, flatten(tiny_pi05.params), tiny_steps["pi05"], libero_spec, tiny_tokenizer)


@pytest.fixture(scope="module")
def lora_step(tmp_path_factory, tiny_pi05, tiny_steps, libero_spec, tiny_tokenizer):
    """The same with random LoRA leaves of rank 2 in its expert."""
    expert = dataclasses.replace(tiny_pi05.config.expert, lora_rank=2)
    shapes = param_shapes(dataclasses.replace(tiny_pi05.config, expert=expert))
    draw = np.random.default_rng(0)
    lora = {path: draw.normal(size=leaf.shape).astype(np.float32) for path, leaf in shapes.items() if is_lora(path)}
    step = tmp_path_factory.mktemp("lora") / "99"
    flat = {**flatten(tiny_pi05.params), **lora}
    return write_step(step, flat, tiny_steps["pi05"], libero_spec, tiny_tokenizer)


@pytest.fixture(scope="module")
def exported(plain_step, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "policies" / "mine"
    export_checkpoint(plain_step, out)
    return out


def refusal(*arguments):
    with pytest.raises(CheckpointInvalid) as error:
        export_checkpoint(*arguments)
    return error.value.message


def test_an_export_holds_the_weights_in_bfloat16_and_no_train_state(exported, plain_step):
    assert {"params", "assets"} <= {child.name for child in exported.iterdir()}
    assert not (exported / "train_state").exists()
    before, after = read_params(plain_step), read_params(exported)
    assert before.keys() == after.keys()
    for path, leaf in after.items():
        assert leaf.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(leaf, before[path].astype(ml_dtypes.bfloat16))


def test_an_export_does_not_say_where_it_was_made(exported):
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert not [path for path in files if str(exported.parent).encode() in path.read_bytes()]


def test_an_export_is_served_like_any_checkpoint(exported, tiny_pi05):
    policy = load_policy(exported, dtype="bfloat16")
    assert policy.parameter_count == count_params(flatten(tiny_pi05.params))
    assert str(policy.spec.policy.checkpoint) == "tiny/first-bf16/99"


def test_an_export_has_spec_tokenizer_and_norm_stats_inside(exported, plain_step):
    before, after = read_assets(plain_step), read_assets(exported)
    origin = after.spec.policy.checkpoint
    assert (str(origin), origin.run_id) == ("tiny/first-bf16/99", "0badcafe-bf16")
    policy = dataclasses.replace(after.spec.policy, checkpoint=before.spec.policy.checkpoint)
    assert dataclasses.replace(after.spec, policy=policy) == before.spec
    assert after.tokenizer.model == before.tokenizer.model
    np.testing.assert_array_equal(after.norm_stats["actions"].q99, before.norm_stats["actions"].q99)
    assert (exported / "assets" / "experiment.json").exists()


def test_lora_leaves_are_merged_before_they_are_rounded(lora_step, tmp_path, tiny_pi05):
    done = export_checkpoint(lora_step, tmp_path / "out")
    assert (done.merged, done.parameters) == (10, count_params(flatten(tiny_pi05.params)))
    expected = merge_lora({path: jnp.asarray(leaf) for path, leaf in read_params(lora_step).items()})
    for path, leaf in read_params(tmp_path / "out").items():
        np.testing.assert_array_equal(leaf, np.asarray(expected[path].astype(jnp.bfloat16)))
    assert read_assets(tmp_path / "out").spec.policy.parameter_count == done.parameters
    assert not (tmp_path / "out" / "assets" / "experiment.json").exists()  # its model has LoRA leaves


def test_openpis_own_checkpoint_becomes_a_policy_of_ours(tiny_steps, tmp_path, libero_spec, tiny_tokenizer):
    export_checkpoint(tiny_steps["pi05"], tmp_path / "out", spec=libero_spec, tokenizer=tiny_tokenizer)
    assert read_assets(tmp_path / "out").spec.action == libero_spec.action
    assert refusal(tiny_steps["pi05"], tmp_path / "other").startswith(
        f"{tiny_steps['pi05']} has no assets/policy_spec.json, so nothing says what the policy expects."
    )
    assert not (tmp_path / "other").exists()


def test_nothing_is_written_over(plain_step, tmp_path):
    assert refusal(plain_step, tmp_path) == f"{tmp_path} exists. Name a folder that does not, or delete it first."


def test_weights_that_are_no_numbers_are_not_handed_on(plain_step, tmp_path):
    flat = read_params(plain_step)
    flat["action_out_proj/bias"] = np.full_like(flat["action_out_proj/bias"], np.nan)
    shutil.copytree(plain_step, tmp_path / "99")
    shutil.rmtree(tmp_path / "99" / "params")
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "99" / "params", as_saved(unflatten(flat)))
    assert refusal(tmp_path / "99", tmp_path / "out") == (
        f"The weights in {tmp_path}/99 hold NaN or infinity in action_out_proj/bias. Use another step."
    )


def test_a_disk_without_room_is_told_before_anything_is_written(plain_step, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(2_000, 1_000, 1_000))
    assert refusal(plain_step, tmp_path / "a" / "out") == (
        f"The export takes 0.0 GB but {tmp_path} has 0.0 GB left. Make room or choose another folder."
    )
    assert not (tmp_path / "a").exists()


def test_the_command_prints_the_sizes_and_how_to_serve(plain_step, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "export", str(plain_step), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said, serve = capsys.readouterr().out.splitlines()
    assert said.startswith(f"Exported {count_params(read_params(plain_step)):,} parameters: 0.")
    assert " MB, of 1." in said
    assert serve == f"Serve it: serve --checkpoint {tmp_path}/out"
