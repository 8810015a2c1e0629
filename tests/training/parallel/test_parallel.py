"""Training over many devices: what is cut where, what it costs each device, and that the numbers stay."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from training.experiment import ExperimentInvalid
from training.experiments import find_experiment
from training.parallel.mesh import mesh_shape
from training.parallel.sharding import bytes_per_device, leaf_sharding, state_shardings
from training.pi05.model.batch_cut import COPIES, PARTS
from training.train_state import state_shapes

EIGHT = AbstractMesh((1, 8), (COPIES, PARTS))
SMALL = find_experiment("pi05_maniskill_stackcube_small")


@pytest.fixture(scope="module")
def results():
    """What a process with eight virtual devices computed."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    program = Path(__file__).with_name("eight_devices.py")
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_eight_devices_compute_what_one_does(results):
    np.testing.assert_allclose(results["eight"]["reports"], results["one"]["reports"], rtol=1e-5)


def test_the_state_is_cut_over_the_parts_of_a_copy_and_stays_so(results):
    shards = {mesh: tuple(result["shard"]) for mesh, result in results.items()}
    assert shards == {"one": (64, 16), "eight": (8, 16)}


def test_the_states_buffers_are_given_to_the_next(results):
    assert all(result["donated"] for result in results.values())


@pytest.mark.parametrize(
    ("shape", "dtype", "spec"),
    [
        ((18, 2048, 16384), jnp.float32, PartitionSpec(None, None, PARTS)),
        ((257_152, 2048), jnp.float32, PartitionSpec(PARTS)),
        ((18, 2, 1024, 4100), jnp.float32, PartitionSpec(None, None, PARTS)),  # 8 does not divide 4100
        ((1024, 1024), jnp.float32, PartitionSpec(None, PARTS)),  # 4 MiB
        ((1024, 1024), jnp.bfloat16, PartitionSpec()),  # 2 MiB
        ((2**21,), jnp.float32, PartitionSpec()),
        ((1025, 1025), jnp.float32, PartitionSpec()),
    ],
)
def test_matrices_of_4_mib_are_cut_along_their_largest_axis_that_the_devices_divide(shape, dtype, spec):
    assert leaf_sharding(EIGHT, shape, dtype).spec == spec


def test_a_full_state_takes_a_device_of_eight_less_than_40_gb():
    shapes = state_shapes(find_experiment("pi05_maniskill_stackcube"))
    each = bytes_per_device(shapes, state_shardings(EIGHT, shapes))
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    assert whole / 8 <= each <= 1.01 * whole / 8
    assert each < 40e9


def test_the_state_is_cut_over_all_devices_unless_it_is_said_otherwise():
    assert mesh_shape(SMALL, 8) == (1, 8)
    assert mesh_shape(dataclasses.replace(SMALL, fsdp_devices=2), 8) == (4, 2)


@pytest.mark.parametrize(
    ("settings", "count", "message"),
    [
        (
            {},
            24,
            "batch_size is 32, which the 24 devices do not divide. Set a multiple of 24: --set batch_size=48, "
            "or use fewer devices (CUDA_VISIBLE_DEVICES).",
        ),
        (
            {"accumulate_steps": 4},
            16,
            "batch_size / accumulate_steps is 8, which the 16 devices do not divide. Set a multiple of 16: "
            "--set batch_size=64, or use fewer devices (CUDA_VISIBLE_DEVICES).",
        ),
        (
            {"fsdp_devices": 3},
            8,
            "fsdp_devices 3 does not divide the 8 devices. "
            "Set it to a divisor of their number, or to null for all: --set fsdp_devices=null.",
        ),
    ],
)
def test_devices_that_do_not_divide_say_what_would(settings, count, message):
    with pytest.raises(ExperimentInvalid) as error:
        mesh_shape(dataclasses.replace(SMALL, **settings), count)
    assert error.value.message == message
