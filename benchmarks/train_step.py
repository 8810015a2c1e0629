"""Goals 10 and 11: a training step's time, samples a second and memory, on whatever device there is.

    python benchmarks/train_step.py [--preset pi05] [--batches 8,16,32,64]

Goal 10: a full fine-tune on an H100 does at least 40 samples a second with two cameras. Goal 11: cut over 8 devices,
the state takes each at most 40 GB, computed without memory for it. One run prints everything:

    the small experiment's step, with and without augmentation and fed by the input pipeline, taking turns
    bytes of the full models' state on each of 8 devices
    on a GPU, or where --preset names a model to try it with: full and LoRA over batches, with MFU

"Fed" has the input pipeline attached, from a frame cache in memory; every step ends before the next batch is taken, so
all of the waiting is the device's. Elsewhere the batch lies on the device. Memory is that of the compiled step alone.
MFU is of the data sheet's dense bfloat16 peak, frozen weights without the gradient that they do not need.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from interleaved import interleaved
from jax.sharding import AbstractMesh
from loader_dataset import write_dataset
from rich.console import Console
from rich.table import Table
from train_step_compiled import CAMERAS, compiled_step, with_lora
from train_step_fed import fed_batches, fed_step

from training.experiment import Experiment
from training.experiments import find_experiment
from training.freezing import Freezing
from training.parallel.sharding import bytes_per_device, state_shardings
from training.pi05.model.batch_cut import COPIES, PARTS
from training.pi05.model.config import preset
from training.telemetry.flops import peak_flops, training_flops
from training.train_state import state_shapes

console = Console(width=140)
_SMALL = "pi05_maniskill_stackcube_small"
_FULL = ("pi05_maniskill_stackcube", "pi05_maniskill_stackcube_lora", "pi0_maniskill_stackcube")
_DEVICES = 8
_COLUMNS = (
    *("weights that train", "batch", "ms a step", "samples/s", "MFU %", "GiB", "compile s"),
    *("samples/s fed", "waiting %"),
)


def small(prompt: int, batch: int, rounds: int, dataset: Path) -> None:
    """The small experiment's step, each way in its turn."""
    experiment = dataclasses.replace(find_experiment(_SMALL), batch_size=batch)
    steps = {
        name: compiled_step(dataclasses.replace(experiment, augment=augment), prompt)
        for name, augment in (("plain", False), ("with augmentation", True))
    }
    with fed_batches(experiment, dataset, prompt) as batches:
        plain = steps["plain"].run
        ways: dict[str, Callable[[], object]] = {name: step.run for name, step in steps.items()}
        seconds = interleaved({**ways, "plain, fed": lambda: plain(next(batches))}, rounds)
    load = os.getloadavg()[0]
    table = Table(title=f"{_SMALL}, batch {batch}, prompt {prompt}, {jax.devices()[0].device_kind}, load {load:.1f}")
    for head in ("step", "ms a step", "samples/s", "MiB"):
        table.add_column(head, justify="right")
    for name, taken in seconds.items():
        median, memory = float(np.median(taken)), steps[name.removesuffix(", fed")].memory
        table.add_row(name, f"{median * 1e3:.0f}", f"{batch / median:.1f}", f"{memory * 1024:.0f}")
    console.print(table)


def sharded() -> None:
    """Goal 11's memory: what each of eight devices holds of a state."""
    mesh = AbstractMesh((1, _DEVICES), (COPIES, PARTS))
    table = Table(title=f"state on {_DEVICES} devices, GB (goal: at most 40 on each)")
    for head in ("experiment", "whole", "each device", "least possible"):
        table.add_column(head, justify="right")
    for name in _FULL:
        shapes = state_shapes(find_experiment(name))
        whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        each = bytes_per_device(shapes, state_shardings(mesh, shapes))
        table.add_row(name, *[f"{size / 1e9:.2f}" for size in (whole, each, whole / _DEVICES)])
    console.print(table)


def experiments(preset_name: str, horizon: int) -> dict[str, Experiment]:
    """What is swept: all weights with and without their average, which a single card may not hold, and LoRA."""
    model = dataclasses.replace(preset(preset_name), action_horizon=horizon)
    full, lora = (
        dataclasses.replace(find_experiment(name), model=kind, init="", execution_horizon=1)
        for name, kind in ((_FULL[0], model), (_FULL[1], with_lora(model)))
    )
    unaveraged = dataclasses.replace(full.optimizer, ema_decay=None)
    return {"all": full, "all, no average": dataclasses.replace(full, optimizer=unaveraged), "LoRA": lora}


def sweep(
    swept: dict[str, Experiment], batches: list[int], prompt: int, calls: int, dataset: Path
) -> Iterator[list[str]]:
    """The cells of the table, measured as they are asked for."""
    for name, experiment in swept.items():
        for batch in batches:
            run = dataclasses.replace(experiment, batch_size=batch)
            try:
                yield [name, str(batch), *[f"{figure:.1f}" for figure in figures(run, prompt, calls, dataset)]]
            except jax.errors.JaxRuntimeError as error:  # most likely out of memory: other weights may fit
                empty = [""] * (len(_COLUMNS) - 3)
                yield [name, str(batch), f"{type(error).__name__}: {str(error)[:60]}", *empty]
                break


def figures(run: Experiment, prompt: int, calls: int, dataset: Path) -> list[float]:
    """A line's figures; the state is gone when they are there."""
    peak, batch, begun = peak_flops(jax.devices()[0]), run.batch_size, time.perf_counter()
    step = compiled_step(run, prompt)
    compiling = time.perf_counter() - begun
    seconds = float(np.median(interleaved({run.name: step.run}, 1, calls)[run.name]))
    frozen = Freezing.of(run).frozen
    flops = training_flops(run.model, batch=batch, cameras=CAMERAS, prompt=prompt, frozen=frozen)
    share = flops / seconds / peak * 100 if peak else float("nan")
    with fed_batches(run, dataset, prompt) as made:
        fed = fed_step(step.run, made, calls)
    alone = [seconds * 1e3, batch / seconds, share, step.memory, compiling]
    return [*alone, batch / fed.seconds, fed.waiting * 100]


def main(
    preset_name: Annotated[
        str | None, typer.Option("--preset", help="Model of the sweep. Default: pi05 on a GPU, else no sweep.")
    ] = None,
    horizon: Annotated[int, typer.Option(help="Action horizon of the sweep.")] = 20,
    prompt: Annotated[int, typer.Option(help="Tokens of the padded prompts.")] = 64,
    batches: Annotated[str, typer.Option(help="Batch sizes of the sweep, ascending, with commas.")] = "4,8,16,32,64",
    calls: Annotated[int, typer.Option(help="Steps timed at each batch size.")] = 10,
    small_batch: Annotated[int, typer.Option(help="Batch of the small experiment.")] = 32,
    rounds: Annotated[int, typer.Option(help="Turns of three steps each of the small experiment.")] = 5,
) -> None:
    """Print up to three tables."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CHUNKWIRE_CACHE"] = str(Path(folder) / "cache")
        dataset = write_dataset(Path(folder) / "dataset", CAMERAS, episodes=10, length=60)
        small(prompt, small_batch, rounds, dataset)
        sharded()
        device = jax.devices()[0]
        if preset_name is None and device.platform != "gpu":
            console.print(
                "No GPU here, so no sweep: goal 10 is not measured. Try the sweep out with --preset pi05_small."
            )
            return
        name = preset_name or "pi05"
        table = Table(title=f"{name}, horizon {horizon}, {CAMERAS} cameras, prompt {prompt}, {device.device_kind}")
        for head in _COLUMNS:
            table.add_column(head, justify="right")
        sizes = [int(part) for part in batches.split(",")]
        for row in sweep(experiments(name, horizon), sizes, prompt, calls, dataset):
            console.print("  ".join(row))  # as it comes: a run that is cut short still says something
            table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
