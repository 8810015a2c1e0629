"""The end of a run whose numbers are none any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np

from training.parallel.processes import EndedTogether
from training.samples import Samples

__all__ = ["Diverged", "DivergenceWatch"]

_NAMES = ("loss", "grad_norm", "param_norm")
_Wrong: TypeAlias = tuple[int, str, float]
"""A step, and of its numbers one that is not finite."""


class Diverged(EndedTogether):
    """The loss, the gradient or the parameters became NaN or infinite."""

    code = "diverged"


class DivergenceWatch:
    """Keeps what the steps since the last look computed, for reading each at once would have the device wait.

    Args:
        directory: the run's folder, in which the batch is saved that a run diverged at.
        samples: this process's rows of the batch of a step.
    """

    def __init__(self, directory: Path, samples: Callable[[int], Samples]) -> None:
        self._directory, self._samples = directory, samples
        self._steps: dict[int, Mapping[str, jax.Array]] = {}

    def computed(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """A step was begun that computes these; none is read."""
        self._steps[step] = {name: metrics[name] for name in _NAMES}

    def look(self, saved: int | None) -> None:
        """Wait for the steps. If one's numbers are not finite, save the batch of the first, each process its rows.

        Args:
            saved: newest step with a checkpoint, to go on from.

        Raises:
            Diverged: a step's numbers are not finite; every process comes to the same end.
        """
        wrong = self._first_wrong()
        self._steps.clear()
        if wrong is None:
            return
        step, name, value = wrong
        raise Diverged(
            f"{name} is {value} at step {step}, the first that is not finite. The batch of that step is saved in "
            f"{self._save(step)}. {_advice(saved)}: --set optimizer.peak_lr=…"
        )

    def _first_wrong(self) -> _Wrong | None:
        for step, metrics in jax.device_get(self._steps).items():
            for name in _NAMES:
                if not np.isfinite(metrics[name]):
                    return step, name, float(metrics[name])
        return None

    def _save(self, step: int) -> Path:
        own = f"_process_{jax.process_index()}" if jax.process_count() > 1 else ""
        path = self._directory / f"diverged_batch{own}.npz"
        leaves, _ = jax.tree.flatten_with_path(self._samples(step))
        np.savez(path, **{jax.tree_util.keystr(place): leaf for place, leaf in leaves})
        return path


def _advice(saved: int | None) -> str:
    if saved is None:
        return "No step is saved yet. Begin anew with a lower rate, with --overwrite or another --exp-name"
    return f"Go on from step {saved} with a lower rate, with --resume"
