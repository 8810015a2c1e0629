"""The training run, from a dataset to checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

import jax
from jax.sharding import Mesh

from training.checkpoints import RunCheckpoints
from training.data.loading.prefetch import Prefetch
from training.divergence import Diverged, stop_if_diverged
from training.experiment import Experiment
from training.init_report import report_lines, write_report
from training.initial_params import InitialParams
from training.inputs import Inputs, open_inputs
from training.observer import Observer
from training.parallel.mesh import make_mesh
from training.parallel.parallel_step import first_state, make_parallel_step, placed_shapes
from training.parallel.sharding import place_batch
from training.run_directory import begin_run, check_run, run_directory
from training.step_clock import StepClock
from training.stop_signal import Stopped, StopSignal
from training.telemetry import open_observers
from training.telemetry.sinks import import_wandb
from training.train_state import TrainState

__all__ = ["Diverged", "train"]


def train(
    experiment: Experiment,
    run: str,
    base: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    ignore_checks: Collection[str] = (),
    skip_corrupt: bool = False,
    wandb: bool = False,
) -> Path:
    """Train an experiment; returns the last step directory.

    Args:
        experiment: what to compute.
        run: name of the run, the folder `<base>/<experiment>/<run>`.
        base: where runs go.
        overwrite: delete a run of that name first.
        resume: go on from its newest checkpoint; the losses are those of an uninterrupted run.
        ignore_checks: names of checks of the dataset whose errors do not stop the run. A resumed run is not checked.
        skip_corrupt: train without the frames that cannot be decoded, and say how many.
        wandb: also log to Weights & Biases.

    Raises:
        ChunkwireError: the dataset, the weights, the run's folder or the settings are not usable, or the run diverged
            (`Diverged`).
        Stopped: a signal ended the run; the state reached is saved.
    """
    directory = run_directory(base, experiment, run)
    check_run(directory, experiment, overwrite=overwrite, resume=resume)
    if wandb:
        import_wandb()
    mesh = make_mesh(experiment)
    initial = None if resume else InitialParams.plan(experiment)
    inputs = open_inputs(experiment, run, None if resume else ignore_checks, skip_corrupt=skip_corrupt)
    key = jax.random.key(experiment.seed)
    state = placed_shapes(experiment, mesh) if initial is None else _first_state(experiment, initial, key, mesh)
    facts = begin_run(directory, experiment, inputs.facts, overwrite=overwrite, resume=resume)
    with RunCheckpoints(directory, inputs.assets, experiment, facts.run_id) as checkpoints:
        if initial is None:
            state = checkpoints.restore(state)
        else:
            write_report(initial, directory)
        first, run_id = int(state.step), facts.run_id
        with (
            open_observers(experiment, inputs, directory, first, run_id=run_id, wandb=wandb) as observers,
            StopSignal() as stop,
        ):
            _run(experiment, inputs, mesh, state, key, checkpoints, directory, observers, stop)
            checkpoints.wait()  # a signal does not end the last save either
        return directory / str(checkpoints.latest)


def _first_state(experiment: Experiment, initial: InitialParams, key: jax.Array, mesh: Mesh) -> TrainState:
    for line in report_lines(initial):
        print(line, file=sys.stderr, flush=True)
    return first_state(experiment, initial, jax.random.fold_in(key, 2**31 - 1), mesh)


def _run(
    experiment: Experiment,
    inputs: Inputs,
    mesh: Mesh,
    state: TrainState,
    key: jax.Array,
    checkpoints: RunCheckpoints,
    directory: Path,
    observers: Observer,
    stop: StopSignal,
) -> None:
    step_function, first, last = make_parallel_step(experiment, mesh), int(state.step), experiment.steps - 1
    clock = StepClock(experiment.batch_size)
    with Prefetch(lambda step: place_batch(mesh, inputs.samples(step)), first, experiment.steps, depth=2) as batches:
        for step in range(first, experiment.steps):
            samples = clock.waited(lambda: next(batches))
            state, metrics = step_function(state, key, samples)
            stopped_by = stop.number  # read once: it may change at any line
            save = step == last or stopped_by is not None or (step + 1) % experiment.save_every == 0
            if save or (step + 1) % experiment.log_every == 0:
                record = clock.record(step, metrics)
                stop_if_diverged(record, directory, samples)
                observers.logged(record)
            with clock.untimed():
                observers.stepped(step, state)
            if save:
                checkpoints.save(state)
                observers.saved(step, state)
            if stopped_by is not None and step != last:
                observers.say(f"stopping: saving step {step}")
                checkpoints.wait()
                raise Stopped(f"stopped; {directory / str(step)} is saved. Go on with --resume.", stopped_by)
