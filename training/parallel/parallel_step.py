"""The update of an experiment over a mesh."""

from __future__ import annotations

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from training.experiment import Experiment
from training.initial_params import InitialParams
from training.parallel.sharding import param_shardings, state_shardings, with_shardings
from training.pi05.model.batch_cut import BATCH
from training.samples import Samples
from training.train_state import TrainState, init_state, state_shapes
from training.train_step import Metrics, TrainStep, make_update

__all__ = ["first_state", "make_parallel_step", "placed_shapes"]


def placed_shapes(experiment: Experiment, mesh: Mesh) -> TrainState:
    """Shapes of a state and where its leaves go: what a restored one must look like, without memory for it."""
    shapes = state_shapes(experiment)
    return with_shardings(shapes, state_shardings(mesh, shapes))


def first_state(experiment: Experiment, initial: InitialParams, key: PRNGKeyArray, mesh: Mesh) -> TrainState:
    """The state before the first update, no leaf of it ever whole on one device unless it stays so."""
    params = initial.make(key, param_shardings(mesh, initial.freezing))
    shardings = state_shardings(mesh, state_shapes(experiment))
    make = jax.jit(lambda params: init_state(experiment, params), out_shardings=shardings, donate_argnums=0)
    state: TrainState = make(params)
    return state


def make_parallel_step(experiment: Experiment, mesh: Mesh) -> TrainStep:
    """The jitted update: the state stays where it is and is donated, the batch is cut over all devices."""
    placed = state_shardings(mesh, state_shapes(experiment))
    everywhere, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, BATCH)
    update = jax.jit(
        make_update(experiment),
        donate_argnums=0,
        in_shardings=(placed, everywhere, rows),
        out_shardings=(placed, everywhere),
    )

    def step(state: TrainState, key: PRNGKeyArray, samples: Samples) -> tuple[TrainState, Metrics]:
        with jax.set_mesh(mesh):  # what `keep_batch_cut` cuts over
            return update(state, key, samples)

    return step
