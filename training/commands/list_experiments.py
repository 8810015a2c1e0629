"""`train list`: the experiments that ship."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from training.pi05.model.config import ModelConfig

__all__ = ["list_command"]


def list_command() -> None:
    """List the experiments."""
    from training.experiments import experiment_names, find_experiment
    from training.pi05.model.params import count_params, param_shapes

    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold")
    table.add_column("model")
    for column in ("parameters", "batch", "steps"):
        table.add_column(column, justify="right")
    table.add_column("dataset", overflow="fold")
    for experiment in map(find_experiment, experiment_names()):
        parameters = count_params(param_shapes(experiment.model))
        table.add_row(
            *(experiment.name, _kind(experiment.model), _short(parameters)),
            *(str(experiment.batch_size), f"{experiment.steps:,}", experiment.dataset),
        )
    # A narrow terminal folds the lines; a file or a pipe gets them whole.
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _kind(model: ModelConfig) -> str:
    return f"{model.family} + LoRA" if model.language.lora_rank or model.expert.lora_rank else model.family


def _short(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"
