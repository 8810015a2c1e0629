"""The experiments that ship: each file here holds a suite's as `EXPERIMENTS`, and they are found by their names."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping

from policy_protocol.errors import did_you_mean
from training.experiment import Experiment, ExperimentInvalid

__all__ = ["experiment_names", "find_experiment"]


def experiment_names() -> tuple[str, ...]:
    """Names of all experiments, sorted."""
    return tuple(sorted(_by_name()))


def find_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ExperimentInvalid: there is none; offers the closest.
    """
    if name not in _by_name():
        raise ExperimentInvalid(
            f"Unknown experiment {name!r}.{did_you_mean(name, experiment_names())} See them all: train list."
        )
    return _by_name()[name]


@functools.cache
def _by_name() -> Mapping[str, Experiment]:
    suites = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {experiment.name: experiment for suite in suites for experiment in suite.EXPERIMENTS}
