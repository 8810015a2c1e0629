"""Goal 7: how much of a training step the device waits for data: at most 2%.

    python benchmarks/loader_waiting.py [--experiments pi05_maniskill_stackcube_small,…]

Two tables. The first is of training itself: the small experiments run for some steps, and the share that each writes
to its `metrics.jsonl` is shown, the first record left out (it holds the compilation). The small experiments of a family
differ in their dataset alone, so one of each is run unless more are named.

The second is for the full-size ones, which no CPU trains: samples a second that the input pipeline delivers (frames,
state, tokens, normalised actions, sent to the device) by one thread's processor time, beside those that are needed:
for goal 10 by one H100, for goal 11 by eight, and the most that eight could ever take, at their peak of arithmetic.
The small tokenizer stands in for PaliGemma's, which would have to be downloaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from loader_dataset import CAMERAS, write_dataset
from rich.console import Console
from rich.table import Table

from training.experiment import Experiment
from training.experiments import find_experiment
from training.freezing import Freezing
from training.inputs import open_inputs
from training.loop import train
from training.parallel.mesh import make_mesh
from training.parallel.sharding import place_batch
from training.telemetry.flops import training_flops

console = Console(width=140)
_SMALL = "pi05_maniskill_stackcube_small,pi0_maniskill_stackcube_small"
_FULL = tuple(f"{family}_maniskill_stackcube{kind}" for family in ("pi05", "pi0") for kind in ("", "_lora"))
_H100_PEAK, _H100_GOAL, _HOST_GOAL = 989e12, 40.0, 128 / 0.35
_HOST = 8


def trained(experiment: Experiment, dataset: Path, runs: Path, steps: int) -> list[str]:
    """The line of an experiment that is trained for some steps."""
    run = dataclasses.replace(
        experiment,
        dataset=str(dataset),
        steps=steps,
        log_every=steps // 10,
        save_every=steps,
        held_out=0.0,
        optimizer=dataclasses.replace(experiment.optimizer, warmup_steps=1),
    )
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # its progress
        directory = train(run, "waiting", runs).parent
    lines = (directory / "metrics.jsonl").read_text().splitlines()[1:]
    seconds, shares = (
        np.array([json.loads(line)[key] for line in lines]) for key in ("step_seconds", "data_wait_share")
    )
    figures = (f"{np.median(seconds) * 1e3:,.0f}", f"{shares.mean():.2%}", f"{shares.max():.2%}")
    return [experiment.name, str(experiment.batch_size), *figures]


def training(names: list[str], dataset: Path, runs: Path, steps: int) -> None:
    """The table of the experiments that are trained here."""
    title = f"training on {jax.devices()[0].device_kind}, {steps} steps, load {os.getloadavg()[0]:.1f} before"
    table = Table(title=title)
    for head in ("experiment", "batch", "ms a step", "waiting for data", "worst record"):
        table.add_column(head, justify="right")
    for name in names:
        table.add_row(*trained(find_experiment(name), dataset, runs, steps))
    console.print(table)


def delivered(experiment: Experiment, dataset: Path, rounds: int) -> float:
    """Samples a second of processor time that reach the device."""
    run = dataclasses.replace(experiment, dataset=str(dataset), tokenizer="small", held_out=0.0)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress
        inputs = open_inputs(run, "delivered", None)
    mesh, seconds = make_mesh(run, jax.devices()[:1]), []
    for step in range(rounds + 1):
        begun = time.process_time()
        jax.block_until_ready(place_batch(mesh, inputs.samples(step)))
        seconds.append(time.process_time() - begun)
    return run.batch_size / float(np.median(seconds[1:]))


def delivering(dataset: Path, rounds: int) -> None:
    """The table of the full-size experiments."""
    table = Table(title="samples/s that the input pipeline delivers on one core, and that are needed")
    heads = ("experiment", "batch", "delivered", "H100 at goal 10", "8 H100 at goal 11", "8 H100 at their peak")
    for head in heads:
        table.add_column(head, justify="right")
    for name in _FULL:
        experiment = find_experiment(name)
        flops = training_flops(
            experiment.model, batch=1, cameras=len(CAMERAS), prompt=64, frozen=Freezing.of(experiment).frozen
        )
        figures = (delivered(experiment, dataset, rounds), _H100_GOAL, _HOST_GOAL, _HOST * _H100_PEAK / flops)
        table.add_row(name, str(experiment.batch_size), *[f"{figure:,.0f}" for figure in figures])
    console.print(table)


def main(
    experiments: Annotated[str, typer.Option(help="Small experiments to train, separated by commas.")] = _SMALL,
    steps: Annotated[int, typer.Option(help="Steps of each, a multiple of 10.")] = 100,
    rounds: Annotated[int, typer.Option(help="Batches of each full-size experiment that are delivered.")] = 10,
) -> None:
    """Print two tables."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["CHUNKWIRE_CACHE"] = str(work / "cache")
        dataset = write_dataset(work / "dataset", len(CAMERAS), episodes=10, length=60)
        delivering(dataset, rounds)
        training(experiments.split(","), dataset, work / "runs", steps)


if __name__ == "__main__":
    typer.run(main)
