"""All checks of a dataset, in the order in which their findings are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from training.check import cameras, episodes, facts, vectors
from training.check.finding import Finding, check_ignored
from training.check.inspected import Inspected
from training.data import Dataset

__all__ = ["check_dataset"]

_COLUMNS = ("state", "actions")
_CHECKS: tuple[Callable[[Inspected], Iterator[Finding]], ...] = (
    cameras.cameras,
    vectors.not_finite,
    vectors.constant_dimensions,
    vectors.outliers,
    vectors.saturated_actions,
    vectors.still_gripper,
    facts.control_frequency,
    facts.hidden_goal,
    facts.missing_prompt,
    facts.missing_facts,
    episodes.few_episodes,
    episodes.duplicate_episodes,
    episodes.short_episodes,
    episodes.uneven_lengths,
    episodes.environment_limit,
)
_SEVERITIES = ("error", "warning", "note")


def check_dataset(
    dataset: Dataset, *, action_horizon: int | None = None, ignore: Collection[str] = ()
) -> tuple[Finding, ...]:
    """All that is wrong with a dataset, the worst first; reads columns and a few frames.

    Args:
        dataset: to look at.
        action_horizon: of the model to train, in steps; None leaves the check against it out.
        ignore: names of checks whose findings are left out.

    Raises:
        DatasetUnsound: a name in `ignore` is no check's.
        DatasetInvalid: a column cannot be read.
    """
    check_ignored(ignore)
    missing = [key for key in _COLUMNS if key not in dataset.features]
    if missing:
        return (_missing_columns(dataset, missing),)
    inspected = Inspected(dataset, action_horizon)
    found = [finding for check in _CHECKS for finding in check(inspected) if finding.check not in ignore]
    return tuple(sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity)))


def _missing_columns(dataset: Dataset, missing: list[str]) -> Finding:
    """Nothing else can be checked without, so this is never ignored."""
    return Finding(
        "missing-column",
        "error",
        f"The dataset has no {' and no '.join(map(repr, missing))}. It has: {', '.join(dataset.features)}.",
        "Rename its columns, or convert the recordings with train convert.",
    )
