"""The training run, from a dataset to checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util
from jax.sharding import Mesh

from policy_protocol.json_tree import to_json
from training.checkpoints import RunCheckpoints
from training.data.loading.prefetch import Prefetch
from training.divergence import Diverged, DivergenceWatch
from training.experiment import Experiment
from training.init_report import report_lines, write_report
from training.initial_params import InitialParams
from training.inputs import Inputs, open_inputs
from training.observer import Observer
from training.parallel.mesh import connect, make_mesh
from training.parallel.parallel_step import first_state, make_parallel_step, placed_shapes
from training.parallel.processes import ALONE, Processes
from training.parallel.sharding import own_rows, place_batch
from training.parallel.stop_agreement import StopAgreement
from training.run_directory import begin_run, check_run, join_run, run_directory
from training.step_clock import StepClock
from training.stop_signal import Stopped, StopSignal
from training.telemetry import EveryProcess, open_observers
from training.telemetry.sinks import import_wandb
from training.train_state import TrainState

__all__ = ["Diverged", "train"]

_PATHS = frozenset({"dataset", "tokenizer", "init"})


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
    processes: Processes = ALONE,
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
        processes: that train together, each on its rows of every batch; all call this with the same arguments, and
            process 0 writes what is not a checkpoint.

    Raises:
        ChunkwireError: the dataset, the weights, the run's folder or the settings are not usable, or the run diverged
            (`Diverged`).
        ProcessesDiffer: the processes were started with other arguments, or do not see the same folder.
        Stopped: a signal ended the run; the state reached is saved.
    """
    directory = run_directory(base, experiment, run)
    processes.require_same(_common(experiment, run, overwrite=overwrite, resume=resume, skip_corrupt=skip_corrupt))
    check_run(directory, experiment, overwrite=overwrite, resume=resume)
    if wandb and processes.leads:
        import_wandb()
    mesh = make_mesh(experiment)
    with processes.leader_first():  # what it downloads and decodes, the others find
        initial = None if resume else InitialParams.plan(experiment)
        checks = None if resume or not processes.leads else ignore_checks
        rows = own_rows(mesh, experiment.batch_size)
        inputs = open_inputs(experiment, run, checks, skip_corrupt=skip_corrupt, rows=rows)
    processes.meet()
    connect(mesh)
    key = jax.random.key(experiment.seed)
    state = placed_shapes(experiment, mesh) if initial is None else _first_state(experiment, initial, key, mesh)
    if processes.leads:
        facts = begin_run(directory, experiment, inputs.facts, overwrite=overwrite, resume=resume)
        processes.broadcast(facts.run_id)
    else:
        facts = join_run(directory, inputs.facts, processes.broadcast(""))
    with RunCheckpoints(directory, inputs.assets, experiment, facts.run_id) as checkpoints:
        if initial is None:
            state = checkpoints.restore(state)
        elif processes.leads:
            write_report(initial, directory)
        first, run_id = int(state.step), facts.run_id
        with (
            open_observers(experiment, inputs, mesh, directory, first, run_id=run_id, wandb=wandb) as observers,
            StopSignal() as stop,
        ):
            _run(experiment, inputs, mesh, state, key, checkpoints, directory, observers, stop)
            checkpoints.wait()  # a signal does not end the last save either
        return directory / str(checkpoints.latest)


def _common(experiment: Experiment, run: str, **flags: bool) -> dict[str, Any]:
    """What all processes of a run have alike; paths may be others on each machine."""
    settings = traverse_util.flatten_dict(to_json(experiment), sep=".")
    told = {"--exp-name": run, **{f"--{name.replace('_', '-')}": value for name, value in flags.items()}}
    return {**told, **{name: value for name, value in settings.items() if name not in _PATHS}}


def _first_state(experiment: Experiment, initial: InitialParams, key: jax.Array, mesh: Mesh) -> TrainState:
    for line in report_lines(initial) if jax.process_index() == 0 else ():
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
    clock, agreement, processes = StepClock(experiment.batch_size), StopAgreement(mesh), EveryProcess(mesh)
    divergence = DivergenceWatch(directory, inputs.samples)
    with Prefetch(lambda step: place_batch(mesh, inputs.samples(step)), first, experiment.steps, depth=2) as batches:
        for step in range(first, experiment.steps):
            samples = clock.waited(lambda: next(batches))
            state, metrics = step_function(state, key, samples)
            clock.began(metrics["loss"])
            divergence.computed(step, metrics)
            stopped_by = agreement.on(stop.number)  # read once: it may change at any line
            save = step == last or stopped_by is not None or (step + 1) % experiment.save_every == 0
            if save or (step + 1) % experiment.log_every == 0:
                record = processes.record(clock.record(step, metrics))
                divergence.look(checkpoints.latest)
                observers.logged(record)
            if observers.wants(step):
                with clock.untimed():
                    observers.stepped(step, state)
            if save:
                checkpoints.save(state)
                observers.saved(step, state)
            if stopped_by is not None and step != last:
                observers.say(f"stopping: saving step {step}")
                checkpoints.wait()
                raise Stopped(f"stopped; {directory / str(step)} is saved. Go on with --resume.", stopped_by)
