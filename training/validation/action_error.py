"""Open-loop action error: what a policy would do at a demonstration's observations, against what was done.

A falling loss says little: a policy that only repeats its last action has a small one too. So the error of each
dimension, in its own units, stands beside those of three trivial policies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jaxtyping import Bool, Float

from training.data import Batch

__all__ = ["ActionErrors", "ErrorSums", "trivial_policies"]

Chunks = Float[np.ndarray, "batch execution_horizon action_dim"]


@dataclass(frozen=True)
class ActionErrors:
    """Mean absolute errors over the executed steps of the chunks, by dimension, in the action's units."""

    names: tuple[str, ...]
    """Of the dimensions."""
    policy: Float[np.ndarray, "action_dim"]
    baselines: Mapping[str, Float[np.ndarray, "action_dim"]]
    """Of the trivial policies, by name."""

    def record(self) -> dict[str, float]:
        """One flat line: `action_error/x`, `repeat_last/x`, …, and `against_best`."""
        parts = {"action_error": self.policy, **self.baselines}
        line = {
            f"{part}/{name}": float(value)
            for part, values in parts.items()
            for name, value in zip(self.names, values, strict=True)
        }
        return {**line, "against_best": self.against_best}

    @property
    def against_best(self) -> float:
        """Error as a share of the best trivial policy's, mean over the dimensions where that one errs at all. Below 1
        the policy has learnt something; NaN where every dimension is trivial."""
        best = np.min(list(self.baselines.values()), axis=0)
        real = best > 0
        return float(np.mean(self.policy[real] / best[real])) if real.any() else float("nan")


@dataclass
class ErrorSums:
    """Sums absolute errors over batches."""

    _sums: dict[str, np.ndarray] = field(default_factory=dict)
    _steps: int = 0

    def add(
        self, done: Chunks, predicted: Mapping[str, Chunks], counts: Bool[np.ndarray, "batch execution_horizon"]
    ) -> None:
        """Compare predictions, by policy, with what was done, on the steps that count."""
        for name, chunks in predicted.items():
            error = np.abs(np.asarray(chunks, np.float64) - done)[counts].sum(axis=0)
            self._sums[name] = self._sums.get(name, 0) + error
        self._steps += int(counts.sum())

    def of_all_processes(self) -> ErrorSums:
        """The sums over what every process of the run added; all must ask for them."""
        if jax.process_count() == 1:
            return self
        mine = {**self._sums, "": np.array([self._steps], np.float64)}
        # As bytes: jax has no float64 here.
        gathered = process_allgather({name: sums.view(np.uint8) for name, sums in mine.items()})
        total = {name: parts.view(np.float64).sum(axis=0) for name, parts in gathered.items()}
        steps = int(total.pop("")[0])
        return ErrorSums(total, steps)

    def errors(self, names: tuple[str, ...], policy: str) -> ActionErrors:
        """Means so far; `policy` is the name of the one that is no baseline."""
        means = {name: total / self._steps for name, total in self._sums.items()}
        return ActionErrors(names, means.pop(policy), means)


def trivial_policies(
    batch: Batch,
    before: Batch,
    mean: Float[np.ndarray, "action_dim"],
    steps: int,
    names: Sequence[str],
    control_mode: str,
) -> dict[str, Chunks]:
    """What three policies without any weights would do.

    Args:
        batch: samples of a dataset.
        before: those that begin one row earlier.
        mean: of the actions trained on.
        steps: to execute.
        names: of the action's dimensions.
        control_mode: ManiSkill's; in a delta mode zero holds the arm still, in any other repeating the last does. A
            gripper takes a position in every mode, so it keeps its last.
    """
    shape = (len(batch.rows), steps, batch.actions.shape[-1])
    # In the first row of an episode nothing was done before; the row earlier is another episode's last.
    first = (batch.rows == 0) | before.actions_is_pad[:, 1:2].any(axis=1)
    last = np.where(first[:, None], mean, before.actions[:, 0])
    policies = {"mean_action": np.broadcast_to(mean, shape), "repeat_last": np.broadcast_to(last[:, None], shape)}
    if "delta" in control_mode:
        gripper = [index for index, name in enumerate(names) if "gripper" in name.lower()]
        policies["hold_still"] = np.zeros(shape)
        policies["hold_still"][..., gripper] = policies["repeat_last"][..., gripper]
    return policies
