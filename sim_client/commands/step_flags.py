"""Flags that say which checkpoints of a run are measured, and where each is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from sim_client.errors import InvalidOption
from sim_client.evaluation.checkpoints import choose_steps, parse_servers, parse_steps

__all__ = ["StepFlags"]


@dataclass(frozen=True)
class StepFlags:
    """All that are served, by default."""

    steps: Annotated[str | None, typer.Option(metavar="STEP[,STEP…]", help="Only these steps.")] = None
    every: Annotated[
        int | None,
        typer.Option(metavar="N", help="The first step, then one every N training steps or more, and the last."),
    ] = None
    servers: Annotated[
        str | None,
        typer.Option(metavar="STEP=URL[,STEP=URL…]", help="A server for each step, instead of --server for all."),
    ] = None

    def check(self, context: typer.Context) -> None:
        """Raises `InvalidOption`: both --server and --servers are given."""
        source = context.get_parameter_source("server")
        if self.servers is not None and source is not None and source.name == "COMMANDLINE":
            raise InvalidOption(
                "--server and --servers both say where the policy is. Pass --servers for a server per step, or "
                "--server for one that loads them on request.",
                field="--servers",
            )

    def by_step(self) -> dict[int, str]:
        """Step -> address; empty when one server has all steps. Raises `InvalidOption`."""
        return {} if self.servers is None else parse_servers(self.servers)

    def choose(self, there: Sequence[int]) -> tuple[int, ...]:
        """Of the steps that are served, those to measure. Raises `InvalidOption`."""
        return choose_steps(there, None if self.steps is None else parse_steps(self.steps), self.every)
