"""Findings for a person, and the check that a training run begins with."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table

from training.check.checks import check_dataset
from training.check.finding import Finding, require_sound
from training.data import Dataset

__all__ = ["check_before_training", "findings_table"]

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def check_before_training(dataset: Dataset, action_horizon: int, ignore: Collection[str] = ()) -> None:
    """Print what is wrong with a dataset on standard error, nothing for a good one, and stop at errors.

    Raises:
        DatasetUnsound: an error was found, or a name in `ignore` is no check's.
    """
    findings = check_dataset(dataset, action_horizon=action_horizon, ignore=ignore)
    require_sound(findings, str(dataset.root))
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for finding in findings:
        console.print(f"check: {dataset.root}: {finding.severity} {finding.check}: {finding.seen} {finding.advice}")


def findings_table(findings: Sequence[Finding]) -> Table:
    """One row a finding."""
    table = Table(show_lines=True)
    for column in ("severity", "check", "seen", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        severity = f"[{_COLOURS[finding.severity]}]{finding.severity}[/]"
        table.add_row(severity, finding.check, *(_literal(text) for text in (finding.seen, finding.advice)))
    return table


def _literal(text: str) -> str:
    """Brackets of a message are no markup."""
    return text.replace("[", r"\[")
