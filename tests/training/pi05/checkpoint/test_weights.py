"""Restoring weights: onto a mesh, in part, and what is said when they cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from training.pi05.checkpoint.step_directory import CheckpointInvalid
from training.pi05.checkpoint.weights import read_leaves, read_params, stored_shapes


@pytest.fixture
def step(tmp_path, tiny_steps):
    """A copy of openpi's checkpoint, to be damaged."""
    return shutil.copytree(tiny_steps["pi05"], tmp_path / "100")


def refusal(function, *arguments):
    with pytest.raises(CheckpointInvalid) as error:
        function(*arguments)
    return error.value.message


def test_on_eight_devices_each_holds_only_its_own_part_of_every_leaf(tiny_steps):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    program = Path(__file__).parent / "sharded_restore.py"
    command = [sys.executable, str(program), str(tiny_steps["pi05"])]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "51 (3, 2, 64, 128) {(3, 2, 32, 32)}\n"


def test_leaves_go_to_the_device_that_is_asked_for_in_the_type_that_is_asked_for(tiny_steps):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    leaves = read_params(tiny_steps["pi05"], jnp.bfloat16, lambda path, shape: device)
    whole = read_params(tiny_steps["pi05"])
    assert leaves.keys() == whole.keys()
    for path, leaf in leaves.items():
        assert isinstance(leaf, jax.Array)
        assert leaf.sharding == device
        np.testing.assert_array_equal(leaf, whole[path].astype(jnp.bfloat16))


def test_shapes_are_told_without_reading_the_weights(tiny_steps):
    shapes = stored_shapes(tiny_steps["pi05"] / "params")
    whole = read_params(tiny_steps["pi05"])
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in shapes.items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in whole.items()
    }


def test_only_the_leaves_that_are_asked_for_are_read(tiny_steps):
    wanted = {"action_in_proj/bias", "PaliGemma/llm/final_norm/scale"}
    assert read_leaves(tiny_steps["pi05"] / "params", wanted).keys() == wanted
    assert read_leaves(tiny_steps["pi05"] / "params", set()) == {}


def test_a_module_named_value_keeps_its_name_when_paths_have_no_suffix(tmp_path):
    tree = {"params": {"attention": {"value": np.ones(2), "key": np.zeros(2)}, "value": np.ones(3)}}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", tree)
    assert sorted(read_params(tmp_path)) == ["attention/key", "attention/value", "value"]


def test_whole_numbers_keep_their_type(tmp_path):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", {"params": {"count": np.int32(3), "scale": np.float32(3)}})
    assert {path: leaf.dtype.name for path, leaf in read_params(tmp_path, jnp.bfloat16).items()} == {
        "count": "int32",
        "scale": "bfloat16",
    }


def test_reading_weights_says_nothing(tiny_steps, caplog):
    read_params(tiny_steps["pi05"])
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_data_file_that_is_gone_is_refused_with_a_leaf_of_it(step):
    largest = max((step / "params").rglob("d/*"), key=lambda path: path.stat().st_size)
    largest.unlink()
    message = refusal(read_params, step)
    assert message.startswith(f"The weights in {step}/params cannot be read; the checkpoint is damaged or incomplete (")
    assert 'Error reading "params.' in message


def test_another_tree_is_named_by_what_it_holds(tmp_path):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", {"step": np.int32(1), "opt_state": np.zeros(1)})
    assert refusal(stored_shapes, tmp_path / "params") == (
        f"The weights in {tmp_path}/params cannot be read; the checkpoint is damaged or incomplete "
        "(it holds opt_state, step instead of params). Use another step, or copy it again."
    )


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "params").mkdir()
    assert "(Metadata file (named _METADATA) does not exist" in refusal(read_params, tmp_path)


def test_weights_that_may_not_be_read_are_told_from_damaged_ones(step):
    root = os.geteuid() == 0
    (step / "params").chmod(0)
    try:
        if root:
            os.seteuid(65534)
        message = refusal(read_params, step)
    finally:
        if root:
            os.seteuid(0)
        (step / "params").chmod(0o755)
    assert message.startswith(f"The weights in {step}/params may not be read ([Errno 13] Permission denied")
    assert message.endswith("). Ask their owner.")
