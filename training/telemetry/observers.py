"""Everybody who hears of a run: files of lines, the person who watches, validation, and the sinks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
from jax.sharding import Mesh

from policy_protocol.json_tree import to_json
from training.experiment import Experiment
from training.inputs import Inputs
from training.observer import Observer, Observers, Record
from training.progress import TrainingProgress
from training.run_directory import MetricsLog
from training.telemetry.machine import Machine
from training.telemetry.sample_images import sample_images
from training.telemetry.sinks import Sink, TensorBoard, WeightsAndBiases
from training.validation import Validator
from training.validation.observer import ValidationHelp, ValidationObserver, validation_line

__all__ = ["open_observers"]


def open_observers(
    experiment: Experiment,
    inputs: Inputs,
    mesh: Mesh,
    directory: Path,
    first: int,
    *,
    run_id: str = "",
    wandb: bool = False,
) -> Observers:
    """Everybody who hears of a run that begins with step `first`; in process 0, the others only help to validate.

    Args:
        mesh: what the run computes on.
        run_id: of the run, which a resumed run keeps.
        wandb: also tell Weights & Biases.

    Raises:
        SinkMissing: `wandb` is asked for and not installed.
    """
    validator = _validator(experiment, inputs, mesh)
    if jax.process_index() != 0:
        return Observers([] if validator is None else [ValidationHelp(experiment, validator)])
    sinks: list[Sink] = [TensorBoard(directory, first)]
    if wandb:
        name = f"{experiment.name}/{directory.name}"
        sinks.append(WeightsAndBiases(directory, name, run_id, to_json(experiment)))
    watched = _Watched(experiment, first)
    observers: list[Observer] = [_Told(experiment, inputs, directory, first, sinks), watched]
    if validator is not None:

        def told(record: Mapping[str, float]) -> None:
            watched.say(validation_line(record))
            _tell(sinks, "validation", record)

        observers.append(ValidationObserver(experiment, validator, directory, first, told))
    return Observers([*observers, _Closing(sinks)])


def _validator(experiment: Experiment, inputs: Inputs, mesh: Mesh) -> Validator | None:
    if inputs.validation is None:
        return None
    return Validator(experiment, inputs.validation, inputs.transform, inputs.assets.norm_stats, mesh)


class _Told(Observer):
    """Every record, with what the machine did, to `metrics.jsonl` and the sinks."""

    def __init__(self, experiment: Experiment, inputs: Inputs, directory: Path, first: int, sinks: list[Sink]) -> None:
        self._log, self._sinks = MetricsLog(directory, first), sinks
        transform = inputs.transform
        cameras = transform.observation.spec.observation.cameras
        self._machine = Machine(experiment, len(cameras), transform.prompt_length)
        if first < experiment.steps:
            for slot, picture in sample_images(experiment, inputs.samples(first)).items():
                for sink in sinks:
                    sink.image(first, f"samples/{slot}", picture)

    def logged(self, record: Record) -> None:
        line = self._machine.record(record)
        self._log.write(line)
        _tell(self._sinks, "train", line)

    def close(self) -> None:
        self._log.close()


class _Watched(Observer):
    """Progress for a person."""

    def __init__(self, experiment: Experiment, first: int) -> None:
        self._progress = TrainingProgress(experiment.name, first, experiment.steps)
        self._progress.__enter__()

    def logged(self, record: Record) -> None:
        self._progress.show(record)

    def say(self, text: str) -> None:
        self._progress.say(text)

    def close(self) -> None:
        self._progress.__exit__(None, None, None)


class _Closing(Observer):
    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


def _tell(sinks: list[Sink], room: str, record: Mapping[str, float]) -> None:
    values = {f"{room}/{name}": value for name, value in record.items() if name != "step"}
    for sink in sinks:
        sink.scalars(int(record["step"]), values)
