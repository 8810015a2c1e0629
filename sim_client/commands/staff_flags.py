"""Flags that say who runs the episodes, and where the results go. None of them changes a result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sim_client.crew.processes import SILENCE_S
from sim_client.errors import InvalidOption
from sim_client.evaluation.staff import Staff

__all__ = ["OutputFlags", "StaffFlags"]


@dataclass(frozen=True)
class StaffFlags:
    """Workers, here or on a cluster."""

    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes; 0 works in this one. Default: half of the cores, at most 8."),
    ] = None
    num_envs: Annotated[int, typer.Option(help="Environments side by side with --sim-backend gpu.")] = 1
    launcher: Annotated[str, typer.Option(help="local, or ray for workers on a Ray cluster.")] = "local"
    ray_address: Annotated[
        str | None, typer.Option(help="Of the cluster; without it one is started on this machine.")
    ] = None
    watchdog: Annotated[
        float, typer.Option(help="Seconds without a sign of life after which a worker is killed and replaced.")
    ] = SILENCE_S

    def staff(self) -> Staff:
        """Raises `InvalidOption`."""
        return Staff(self.workers, self.launcher, self.ray_address, self.num_envs, self.watchdog)


@dataclass(frozen=True)
class OutputFlags:
    """Where results go, who else writes there, and how they are shown.

    Raises:
        InvalidOption: two flags contradict each other.
    """

    out: Annotated[
        Path | None,
        typer.Option(help="Results directory, of several tasks their folder; by default under results/."),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the results that are there.")] = False
    share: Annotated[
        bool,
        typer.Option(
            "--share",
            help="Other processes, with the same flags, work on these episodes too: here, in containers, or on "
            "machines that share the results directory.",
        ),
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False

    def __post_init__(self) -> None:
        if self.share and self.overwrite:
            raise InvalidOption(
                "--overwrite cannot be passed with --share: every process that starts would delete what the others "
                "have finished. Delete the results directory first, or pass another --out.",
                field="--overwrite",
            )
