"""The devices of a run as a grid: copies of the state along one axis, the parts of a copy along the other."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from training.experiment import Experiment, ExperimentInvalid
from training.pi05.model.batch_cut import COPIES, PARTS

__all__ = ["connect", "make_mesh", "mesh_shape"]


def make_mesh(experiment: Experiment, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The grid of an experiment's devices, (copies, parts of a copy); when None, of all devices of all processes.

    Neighbours in the grid are of one process, and processes next to each other of one machine.

    Raises:
        ExperimentInvalid: as `mesh_shape`.
    """
    devices = sorted(jax.devices() if devices is None else devices, key=lambda one: (_machine(one), one.id))
    together = sum(_machine(device) == _machine(devices[0]) for device in devices)
    return Mesh(np.array(devices).reshape(mesh_shape(experiment, len(devices), together)), (COPIES, PARTS))


def connect(mesh: Mesh) -> None:
    """Make the groups of devices that a run sums over, while no process is far behind: between CPUs, one that still
    compiles would be waited for 30 s only."""
    if jax.process_count() == 1:
        return
    sync_global_devices("connect")  # a device of each process, the group that saving takes
    for axes in ((COPIES, PARTS), (COPIES,), (PARTS,)):
        cut, everywhere = NamedSharding(mesh, PartitionSpec(axes)), NamedSharding(mesh, PartitionSpec())
        ones = np.ones(np.prod([mesh.shape[axis] for axis in axes]), np.float32)
        placed = jax.make_array_from_callback(ones.shape, cut, ones.__getitem__)
        jax.block_until_ready(jax.jit(jnp.sum, out_shardings=everywhere)(placed))


def mesh_shape(experiment: Experiment, count: int, together: int | None = None) -> tuple[int, int]:
    """How many copies of the state so many devices hold, and in how many parts each.

    Args:
        count: of the devices.
        together: how many of them are in one machine; all when None.

    Raises:
        ExperimentInvalid: the devices divide neither into such copies nor the batch.
    """
    parts = experiment.fsdp_devices or together or count
    if count % parts:
        raise ExperimentInvalid(
            f"fsdp_devices {parts} does not divide the {count} devices. "
            "Set it to a divisor of their number, or to null for all: --set fsdp_devices=null.",
            field="fsdp_devices",
        )
    rows = experiment.batch_size // experiment.accumulate_steps
    if rows % count:
        computed = "batch_size" if experiment.accumulate_steps == 1 else "batch_size / accumulate_steps"
        raise ExperimentInvalid(
            f"{computed} is {rows}, which the {count} devices do not divide. Set a multiple of {count}: "
            f"--set batch_size={_next_multiple(experiment, count)}, or use fewer devices (CUDA_VISIBLE_DEVICES).",
            field="batch_size",
        )
    return count // parts, parts


def _machine(device: jax.Device) -> int:
    """Of the devices between which sums are quick: what jax calls a partition, be it one process's or several's."""
    return getattr(device, "partition_index", None) or 0


def _next_multiple(experiment: Experiment, count: int) -> int:
    whole = count * experiment.accumulate_steps
    return -(-experiment.batch_size // whole) * whole
