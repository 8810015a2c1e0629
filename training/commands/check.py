"""`train check`: what is wrong with a dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from training.check import Finding, check_dataset, findings_table
from training.data import Dataset
from training.data.lerobot.hub import find_dataset

__all__ = ["check_command"]

_SEVERITIES = ("error", "warning", "note")


def check_command(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="LeRobot dataset: a folder, or a Hub id OWNER/NAME[@REVISION].")
    ],
    action_horizon: Annotated[
        int | None, typer.Option(help="Steps of a chunk of the model to train: checks that episodes are longer.", min=1)
    ] = None,
    ignore_check: Annotated[list[str] | None, typer.Option(help="Name of a check to leave out. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what makes a dataset unfit to train on; exit code 1 when an error is found."""
    data = Dataset(find_dataset(dataset))
    findings = check_dataset(data, action_horizon=action_horizon, ignore=ignore_check or ())
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print(data, findings)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _print(data: Dataset, findings: Sequence[Finding]) -> None:
    console = Console(highlight=False)
    if findings:
        console.print(findings_table(findings))
    counted = (sum(finding.severity == severity for finding in findings) for severity in _SEVERITIES)
    told = ", ".join(
        f"{count} {name}{'' if count == 1 else 's'}" for count, name in zip(counted, _SEVERITIES, strict=True)
    )
    console.print(
        f"{data.root}: {data.rows} rows of {len(data.episodes)} episodes; {told}", soft_wrap=True, markup=False
    )
