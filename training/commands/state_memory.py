"""What the state of a run takes of each device, by abstract evaluation: no array is made."""

from __future__ import annotations

from dataclasses import dataclass

from jax.sharding import AbstractMesh

from training.experiment import Experiment
from training.parallel.mesh import mesh_shape
from training.parallel.sharding import bytes_per_device, state_shardings
from training.pi05.model.batch_cut import COPIES, PARTS
from training.train_state import state_shapes

__all__ = ["StateMemory", "state_memory"]


@dataclass(frozen=True)
class StateMemory:
    """Bytes on one device. Gradients and activations come on top while a step is computed."""

    params: int
    optimizer: int
    """AdamW's two moments of the leaves that train, and its counters."""
    average: int
    """The averaged weights; 0 without averaging."""

    @property
    def total(self) -> int:
        return self.params + self.optimizer + self.average


def state_memory(experiment: Experiment, devices: int) -> StateMemory:
    """The state of an experiment on each of so many devices.

    Raises:
        ExperimentInvalid: the devices divide neither its batch nor into its copies of the state.
    """
    mesh = AbstractMesh(mesh_shape(experiment, devices), (COPIES, PARTS))
    shapes = state_shapes(experiment)
    places = state_shardings(mesh, shapes)
    return StateMemory(
        bytes_per_device(shapes.params, places.params),
        bytes_per_device(shapes.opt_state, places.opt_state),
        bytes_per_device(shapes.ema_params, places.ema_params),
    )
