"""`train list`: the experiments that ship."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.pi05.model.config import ModelConfig

if TYPE_CHECKING:
    from training.experiment import Experiment

__all__ = ["list_command"]


def list_command(
    memory: Annotated[
        bool, typer.Option("--memory", help="Show what the state of each takes of a device, in GB of 10^9 bytes.")
    ] = False,
    devices: Annotated[
        int | None, typer.Option(help="With --memory: how many devices the state is cut over. Default: 8.", min=1)
    ] = None,
) -> None:
    """List the experiments."""
    if devices is not None and not memory:
        raise typer.BadParameter("--devices says what --memory counts for: pass --memory too.")
    from training.experiments import experiment_names, find_experiment

    experiments = [find_experiment(name) for name in experiment_names()]
    if not memory:
        return _print(_sizes(experiments))
    count = devices or 8
    _print(_memory(experiments, count))
    print(
        f"\nGB that each of {count} devices holds between steps; gradients and activations come on top. "
        f"- where batch or --set fsdp_devices does not fit {count} devices."
    )
    return None


def _sizes(experiments: Sequence[Experiment]) -> Table:
    from training.pi05.model.params import count_params, param_shapes

    table = _table(("model",), ("parameters", "batch", "steps"))
    table.add_column("dataset", overflow="fold")
    for experiment in experiments:
        parameters = count_params(param_shapes(experiment.model))
        table.add_row(
            *(experiment.name, _kind(experiment.model), _short(parameters)),
            *(str(experiment.batch_size), f"{experiment.steps:,}", experiment.dataset),
        )
    return table


def _memory(experiments: Sequence[Experiment], devices: int) -> Table:
    table = _table(("model",), ("batch", "params", "optimizer", "average", "state"))
    for experiment in experiments:
        table.add_row(
            *(experiment.name, _kind(experiment.model), str(experiment.batch_size)), *_gigabytes(experiment, devices)
        )
    return table


def _gigabytes(experiment: Experiment, devices: int) -> list[str]:
    from training.commands.state_memory import state_memory
    from training.experiment import ExperimentInvalid

    try:
        held = state_memory(experiment, devices)
    except ExperimentInvalid:
        return ["-"] * 4
    return [f"{size / 1e9:.2f}" for size in (held.params, held.optimizer, held.average, held.total)]


def _table(words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold")
    for column in words:
        table.add_column(column)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _print(table: Table) -> None:
    # A narrow terminal folds the lines; a file or a pipe gets them whole.
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _kind(model: ModelConfig) -> str:
    return f"{model.family} + LoRA" if model.language.lora_rank or model.expert.lora_rank else model.family


def _short(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"
