"""`serve describe`: what a checkpoint is, without loading it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["describe_command"]


def describe_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Step directory, such as runs/…/29999.")],
    spec: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Policy spec for a stock openpi checkpoint: pi05_libero, pi05_droid, …, or a policy_spec.json.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="sentencepiece model (path or URL), to count the prompts' tokens where there is none."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print what a checkpoint expects, gives and holds, from its metadata: no weights are read, no device is used.

    Ends with 1 when `serve` would refuse the checkpoint, and says why.
    """
    import jax

    jax.config.update("jax_platforms", "cpu")  # a GPU's memory belongs to the server that runs beside this
    from policy_server.description.checkpoint import describe
    from policy_server.description.tables import tables

    description = describe(checkpoint, spec, tokenizer)
    if as_json:
        print(json.dumps(description.to_json(), indent=2))
    else:
        console = Console(highlight=False)
        for table in tables(description):
            console.print(table)
        for problem in description.problems:
            console.print(f"serve would refuse it: {problem}", style="red", markup=False)
    if description.problems:
        raise typer.Exit(1)
