"""`train recipe`: how the policies that ship are made, for the Makefile and for people."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

__all__ = ["recipe_command"]


def recipe_command(
    name: Annotated[str, typer.Argument(help="Of the policy, such as pushcube.")],
    demonstrations: Annotated[int | None, typer.Option(help="In place of the recipe's.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Updates, in place of the recipe's.", min=1)] = None,
    episodes: Annotated[int | None, typer.Option(help="To evaluate, in place of the recipe's.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first of them, in place of the recipe's.", min=0)] = None,
) -> None:
    """Print what `make policy TASK=NAME` sets, a variable of the Makefile in each line."""
    from training.experiments import find_experiment, find_recipe

    given: dict[str, Any] = {"demonstrations": demonstrations, "steps": steps, "episodes": episodes, "seed": seed}
    recipe = replace(find_recipe(name), **{field: value for field, value in given.items() if value is not None})
    for variable, value in recipe.variables(find_experiment(recipe.experiment)).items():
        print(f"{variable}={value}")
