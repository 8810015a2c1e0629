"""Step directories: openpi's are read, and whatever is wrong with one is said."""

from __future__ import annotations

import json
import shutil

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from training.pi05.checkpoint.step_directory import Assets, CheckpointInvalid, find_step, read_assets, write_assets
from training.pi05.checkpoint.weights import as_saved, read_params
from training.pi05.model.params import count_params, flatten, param_shapes
from training.pi05.transforms.normalization import read_norm_stats
from training.pi05.transforms.tokenizer import Tokenizer


@pytest.fixture
def step(tmp_path, tiny_steps):
    """A copy of openpi's checkpoint, to be damaged."""
    return shutil.copytree(tiny_steps["pi05"], tmp_path / "tiny" / "run" / "100")


def refusal(function, *arguments, **keywords):
    with pytest.raises(CheckpointInvalid) as error:
        function(*arguments, **keywords)
    return error.value.message


@pytest.mark.parametrize("family", ["pi05", "pi0"])
def test_openpis_params_are_read_with_the_models_paths(tiny_steps, request, family):
    flat = read_params(tiny_steps[family])
    config = request.getfixturevalue(f"tiny_{family}").config
    expected = param_shapes(config)
    assert {path: leaf.shape for path, leaf in flat.items()} == {path: leaf.shape for path, leaf in expected.items()}
    assert {leaf.dtype.name for leaf in flat.values()} == {"float32"}


def test_the_value_suffix_is_stripped_and_a_module_named_value_is_not(tiny_steps):
    attention = "PaliGemma/img/Transformer/encoderblock/MultiHeadDotProductAttention_0"
    flat = read_params(tiny_steps["pi05"])
    assert f"{attention}/value/kernel" in flat
    assert f"{attention}/value/bias" in flat
    assert not any(path.endswith("/value") for path in flat)


def test_params_without_value_suffixes_are_read_as_they_are(tmp_path, tiny_pi05):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "5" / "params", {"params": tiny_pi05.params})
    assert read_params(tmp_path / "5").keys() == flatten(tiny_pi05.params).keys()


def test_params_are_cast_on_load(tiny_steps):
    flat = read_params(tiny_steps["pi05"], np.dtype(ml_dtypes.bfloat16))
    assert {leaf.dtype.name for leaf in flat.values()} == {"bfloat16"}


def test_what_is_saved_is_openpis_tree_name_for_name(tmp_path, tiny_pi05, tiny_steps):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", as_saved(tiny_pi05.params))
    ours, theirs = (
        json.loads((folder / "_METADATA").read_text())["tree_metadata"]
        for folder in (tmp_path / "params", tiny_steps["pi05"] / "params")
    )
    assert ours.keys() == theirs.keys()
    assert count_params(flatten(tiny_pi05.params)) == sum(
        leaf.size for leaf in read_params(tiny_steps["pi05"]).values()
    )


def test_a_step_directory_is_found(step):
    assert find_step(step) == step


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_directory_of_pytorch_weights_is_a_step_whole_or_in_shards(tmp_path, name):
    step = tmp_path / "run" / "30000"
    step.mkdir(parents=True)
    (step / name).touch()
    assert find_step(step) == step
    assert refusal(find_step, tmp_path / "run").endswith(f"Pass one of its steps: {step}.")


def test_a_file_is_no_step(tmp_path):
    (tmp_path / "model.safetensors").touch()
    assert " is not a checkpoint step: " in refusal(find_step, tmp_path / "model.safetensors")


def test_a_path_without_anything_is_refused(tmp_path):
    assert refusal(find_step, tmp_path / "no") == (
        f"There is no checkpoint at {tmp_path}/no. Train one (train --help) or check the path."
    )


def test_a_run_offers_its_newest_steps(step):
    for number in (7, 20, 300):
        shutil.copytree(step, step.parent / str(number))
    (step.parent / "400").mkdir()  # without params: not a step
    run = step.parent
    assert refusal(find_step, run) == (
        f"{run} is a run, not a step. Pass one of its steps: {run}/20, {run}/100, {run}/300."
    )


def test_the_inside_of_a_step_points_at_the_step(step):
    assert refusal(find_step, step / "params") == (
        f"{step}/params is the inside of a step. Pass the step directory {step}."
    )


def test_another_folder_is_no_step(tmp_path):
    assert refusal(find_step, tmp_path) == (
        f"{tmp_path} is not a checkpoint step: it holds neither params/ nor model.safetensors. "
        "A step looks like RUN/29999 with params/ and assets/ in it."
    )


@pytest.mark.parametrize("damage", ["manifest.ocdbt", "_METADATA", "d"])
def test_damaged_params_are_refused_with_the_reason(step, damage):
    victim = step / "params" / damage
    if victim.is_dir():
        for part in (step / "params").rglob("d/*"):
            part.write_bytes(b"damaged")
    else:
        victim.write_bytes(b"damaged")
    message = refusal(read_params, step)
    assert message.startswith(f"The weights in {step}/params cannot be read; the checkpoint is damaged or incomplete (")
    assert message.endswith("). Use another step, or copy it again.")


def test_missing_params_are_refused(step):
    shutil.rmtree(step / "params")
    (step / "params").mkdir()
    assert refusal(read_params, step).startswith(f"The weights in {step}/params cannot be read; the checkpoint is ")


def test_assets_survive_the_disk(tmp_path, tiny_steps, libero_spec, tiny_tokenizer):
    asset_id = "physical-intelligence/libero"
    stats = read_norm_stats(tiny_steps["pi05"] / "assets" / asset_id / "norm_stats.json")
    write_assets(tmp_path / "assets", Assets(asset_id, stats, libero_spec, Tokenizer.load(tiny_tokenizer)))
    back = read_assets(tmp_path)
    assert back.asset_id == asset_id
    assert back.spec == libero_spec
    assert back.tokenizer.vocabulary == 512
    np.testing.assert_array_equal(back.norm_stats["actions"].q99, stats["actions"].q99)


def test_a_stock_openpi_checkpoint_needs_a_spec(step):
    assert refusal(read_assets, step) == (
        f"{step} has no assets/policy_spec.json, so nothing says what the policy expects. "
        "It is probably a stock openpi checkpoint: pass --spec with the name of its policy "
        "(pi05_libero, pi05_droid, pi0_libero, pi0_droid, pi0_aloha_sim) or with a spec file."
    )


def test_a_stock_openpi_checkpoint_needs_a_tokenizer(step, libero_spec):
    assert refusal(read_assets, step, spec=libero_spec) == (
        f"{step} has no assets/tokenizer.model. Pass --tokenizer PATH (PaliGemma's, usually)."
    )


def test_a_checkpoint_without_norm_stats_is_refused(step, libero_spec):
    shutil.rmtree(step / "assets" / "physical-intelligence")
    assert refusal(read_assets, step, spec=libero_spec) == (
        f"{step} must hold exactly one assets/<asset id>/norm_stats.json; found: none."
    )


def test_a_checkpoint_with_two_norm_stats_lists_them(step, libero_spec):
    shutil.copytree(step / "assets" / "physical-intelligence" / "libero", step / "assets" / "droid")
    assert refusal(read_assets, step, spec=libero_spec) == (
        f"{step} must hold exactly one assets/<asset id>/norm_stats.json; found: assets/droid/norm_stats.json, "
        "assets/physical-intelligence/libero/norm_stats.json."
    )
