"""One thing that is wrong with a dataset: how bad, what was seen, what to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from policy_protocol.errors import ChunkwireError, did_you_mean

__all__ = ["CHECK_NAMES", "CheckName", "DatasetUnsound", "Finding", "Severity", "check_ignored", "require_sound"]

Severity: TypeAlias = Literal["error", "warning", "note"]
"""An error makes training pointless, a warning may explain a bad policy, a note is worth knowing."""

CheckName: TypeAlias = Literal[
    "missing-column",
    "no-camera",
    "black-camera",
    "frozen-camera",
    "corrupt-frame",
    "not-finite",
    "constant-dimension",
    "outliers",
    "saturated-actions",
    "still-gripper",
    "few-episodes",
    "duplicate-episodes",
    "short-episodes",
    "uneven-lengths",
    "environment-limit",
    "missing-facts",
    "control-frequency",
    "hidden-goal",
    "missing-prompt",
]
CHECK_NAMES: tuple[CheckName, ...] = get_args(CheckName)
"""What `--ignore-check` takes."""

_UNTRAINABLE = frozenset({"missing-column", "no-camera", "not-finite"})
"""What no flag helps against: there would be nothing to learn from."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found."""

    check: CheckName
    severity: Severity
    seen: str
    """What was seen, with its numbers."""
    advice: str
    """What to do."""


class DatasetUnsound(ChunkwireError):
    """A dataset that no good policy can come of, or a check to ignore that does not exist."""

    code = "dataset_unsound"


def check_ignored(names: Collection[str]) -> None:
    """Refuse names that are no check's.

    Raises:
        DatasetUnsound: a name is unknown ("Did you mean").
    """
    for name in names:
        if name not in CHECK_NAMES:
            raise DatasetUnsound(
                f"--ignore-check {name!r}: there is no such check.{did_you_mean(name, CHECK_NAMES)} "
                f"There are: {', '.join(CHECK_NAMES)}."
            )


def require_sound(findings: Sequence[Finding], dataset: str) -> None:
    """Stop where an error was found.

    Raises:
        DatasetUnsound: names each error, and the flag that trains in spite of it.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        told = "\n".join(f"  {error.check}: {error.seen} {error.advice}" for error in errors)
        raise DatasetUnsound(f"{dataset} should not be trained on:\n{told}{_way_on([error.check for error in errors])}")


def _way_on(errors: Sequence[CheckName]) -> str:
    if _UNTRAINABLE.intersection(errors):
        return ""
    flags = [
        "--skip-corrupt" if name == "corrupt-frame" else f"--ignore-check {name}" for name in dict.fromkeys(errors)
    ]
    return f"\nTo train on it as it is: {' '.join(flags)}"
