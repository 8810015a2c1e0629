"""Checks of the numbers: states and actions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from training.check.finding import Finding
from training.check.inspected import Inspected

__all__ = ["constant_dimensions", "not_finite", "outliers", "saturated_actions", "still_gripper"]

_LARGEST = 100.0
"""Largest sane normalised number: within the 1st and 99th percentile it is at most 1."""
_SATURATED, _HOPELESS = 0.2, 0.5
"""Share of rows at a bound from which it is a warning, and from which an error."""
_NEED_A_HAND = ("StackCube-v1", "PickCube-v1", "PlaceSphere-v1", "PegInsertionSide-v1")


def not_finite(inspected: Inspected) -> Iterator[Finding]:
    """NaN or infinity: one is enough to make every weight NaN."""
    for key, values in inspected.vectors.items():
        rows, dimensions = np.nonzero(~np.isfinite(values))
        if len(rows):
            names = ", ".join(inspected.name(key, index) for index in np.unique(dimensions).tolist())
            yield Finding(
                "not-finite",
                "error",
                f"{key} has NaN or infinity in {len(np.unique(rows))} of {len(values)} rows, first in row {rows[0]}, "
                f"dimension {names}.",
                "Record those episodes again, or convert without them.",
            )


def constant_dimensions(inspected: Inspected) -> Iterator[Finding]:
    """Dimensions that never change: dead sensors, or commands that the controller does not take."""
    for key, values in inspected.vectors.items():
        still = [index for index in range(values.shape[1]) if _spread(values[:, index]) == 0]
        named = [index for index in still if (key, index) != ("actions", inspected.gripper)]
        if named and len(still) == values.shape[1]:
            yield Finding(
                "constant-dimension",
                "error",
                f"All {len(still)} dimensions of {key} are the same in every row.",
                "Nothing can be learned from it: record or convert the demonstrations again.",
            )
        elif named:
            yield Finding(
                "constant-dimension",
                "warning",
                f"{key} never changes in dimension {', '.join(inspected.name(key, index) for index in named)}.",
                "Normalisation divides by its spread of zero: any other value in an evaluation is off by millions. "
                "Leave the dimension out (train convert --state) or make sure that it is constant there too.",
            )


def outliers(inspected: Inspected) -> Iterator[Finding]:
    """Rare values far outside the percentiles by which quantile normalisation scales."""
    for key, values in inspected.vectors.items():
        for index in range(values.shape[1]):
            column = values[:, index]
            if not np.all(np.isfinite(column)) or _spread(column) == 0:
                continue
            q01, q99 = np.quantile(column, [0.01, 0.99])
            largest = np.max(np.abs((column - q01) / (q99 - q01 + 1e-6) * 2 - 1))
            if largest > _LARGEST:
                yield Finding(
                    "outliers",
                    "error" if key == "actions" else "warning",
                    f"{key} dimension {inspected.name(key, index)} goes from {column.min():.4g} to {column.max():.4g}, "
                    f"but 98% of it lies in {q01:.4g} to {q99:.4g}: normalised it reaches {largest:,.0f} instead of 1.",
                    "Look at those rows, or normalise by z-scores: --set normalization=zscore.",
                )


def saturated_actions(inspected: Inspected) -> Iterator[Finding]:
    """Actions at their bounds: what was commanded was cut off. A gripper, or another switch, is always at one."""
    low, high = _bounds(inspected)
    for index in range(inspected.actions.shape[1]):
        column = inspected.actions[:, index]
        if index == inspected.gripper or len(np.unique(column)) <= 2:
            continue
        share = float(np.mean((column <= low[index]) | (column >= high[index])))
        if share >= _SATURATED:
            yield Finding(
                "saturated-actions",
                "error" if share >= _HOPELESS else "warning",
                f"actions dimension {inspected.name('actions', index)} is at {low[index]:g} or {high[index]:g} in "
                f"{share:.0%} of the rows.",
                "The controller clipped what was commanded. Record with slower motions, a higher control frequency or "
                "an absolute control mode.",
            )


def still_gripper(inspected: Inspected) -> Iterator[Finding]:
    """A gripper that never opens or closes, in a task that cannot be done without."""
    column = inspected.actions[:, inspected.gripper]
    facts = inspected.dataset.facts
    if _spread(column) != 0 or (facts and not set(facts.env_ids) & set(_NEED_A_HAND)):
        return
    yield Finding(
        "still-gripper",
        "error" if facts else "warning",
        f"The gripper, actions dimension {inspected.name('actions', inspected.gripper)}, is {column[0]:g} in every "
        f"row{' of ' + ', '.join(facts.env_ids) if facts else ''}.",
        "If the task needs a grasp, the recording lost it: check the order of its dimensions and record again.",
    )


def _spread(column: np.ndarray) -> float:
    """Largest minus smallest; NaN, which equals nothing, where one is in it."""
    return float(np.max(column) - np.min(column))


def _bounds(inspected: Inspected) -> tuple[np.ndarray, np.ndarray]:
    """The controller's bounds; where nobody knows them, the extremes that occur."""
    facts, actions = inspected.dataset.facts, inspected.actions
    if facts and len(facts.action_low) == len(facts.action_high) == actions.shape[1]:
        return np.asarray(facts.action_low), np.asarray(facts.action_high)
    return actions.min(axis=0), actions.max(axis=0)
