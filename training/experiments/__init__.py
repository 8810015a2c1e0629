"""The experiments that ship, one to a file; the file's `EXPERIMENT` is found by its name."""

from __future__ import annotations

import importlib
import pkgutil

from policy_protocol.errors import did_you_mean
from training.experiment import Experiment, ExperimentInvalid

__all__ = ["experiment_names", "find_experiment"]


def experiment_names() -> tuple[str, ...]:
    """Names of all experiments, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ExperimentInvalid: there is none; offers the closest.
    """
    if name not in experiment_names():
        raise ExperimentInvalid(
            f"Unknown experiment {name!r}.{did_you_mean(name, experiment_names())} See them all: train list."
        )
    experiment: Experiment = importlib.import_module(f"{__name__}.{name}").EXPERIMENT
    return experiment
