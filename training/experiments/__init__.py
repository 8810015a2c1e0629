"""The experiments that ship: each file here holds a suite's as `EXPERIMENTS`, and they are found by their names.

So are the recipes, `RECIPES`, of the policies that ship.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType

from policy_protocol.errors import did_you_mean
from training.experiment import Experiment, ExperimentInvalid
from training.recipe import Recipe

__all__ = ["experiment_names", "find_experiment", "find_recipe", "recipe_names"]


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


def recipe_names() -> tuple[str, ...]:
    """Names of all recipes, sorted."""
    return tuple(sorted(_recipes()))


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ExperimentInvalid: there is none; offers the closest, or lists them.
    """
    if name not in _recipes():
        raise ExperimentInvalid(f"There is no recipe {name!r}.{did_you_mean(name, recipe_names())}")
    return _recipes()[name]


@functools.cache
def _by_name() -> Mapping[str, Experiment]:
    return {experiment.name: experiment for suite in _suites() for experiment in suite.EXPERIMENTS}


@functools.cache
def _recipes() -> Mapping[str, Recipe]:
    return {recipe.name: recipe for suite in _suites() for recipe in suite.RECIPES}


def _suites() -> list[ModuleType]:
    return [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
