"""Validation every so many steps: a line of `validation.jsonl`, and a few words for the person who watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from training.experiment import Experiment
from training.observer import Observer
from training.retention import VALIDATION_FILE
from training.run_directory import MetricsLog
from training.train_state import TrainState
from training.validation.validator import Validation, Validator

__all__ = ["ValidationHelp", "ValidationObserver", "validation_line"]


class ValidationHelp(Observer):
    """Validates the weights that would be served, every `validate_every` steps and after the last, and tells nobody:
    all processes of a run compute a validation, one records it.

    Args:
        experiment: says when.
        validator: measures.
    """

    def __init__(self, experiment: Experiment, validator: Validator) -> None:
        self._validator, self._last, self._every = validator, experiment.steps - 1, experiment.validate_every

    def wants(self, step: int) -> bool:
        return (step + 1) % self._every == 0 or step == self._last

    def stepped(self, step: int, state: TrainState) -> None:
        self._record(step, self._validator(state.served_params))

    def _record(self, step: int, validation: Validation) -> None:
        """Overridden where somebody is to hear of it."""


class ValidationObserver(ValidationHelp):
    """Also records what was measured.

    Args:
        experiment: says when.
        validator: measures.
        directory: the run's folder.
        first: step that the run begins or goes on with.
        told: hear of each result as a flat record with its step.
    """

    def __init__(
        self,
        experiment: Experiment,
        validator: Validator,
        directory: Path,
        first: int,
        told: Callable[[Mapping[str, float]], None],
    ) -> None:
        super().__init__(experiment, validator)
        self._told, self._log = told, MetricsLog(directory, first, VALIDATION_FILE)

    def close(self) -> None:
        self._log.close()

    def _record(self, step: int, validation: Validation) -> None:
        record = {"step": step, **validation.record()}
        self._log.write(record)
        self._told(record)


def validation_line(record: Mapping[str, float]) -> str:
    """A validation for a person."""
    return (
        f"validation after step {int(record['step'])}: loss {record['loss']:.4f}, action error "
        f"{record['against_best']:.0%} of the best trivial policy's"
    )
