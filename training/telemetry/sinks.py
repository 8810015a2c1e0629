"""Where numbers and pictures go to be looked at while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from policy_protocol.errors import ChunkwireError

__all__ = ["Sink", "SinkMissing", "TensorBoard", "WeightsAndBiases", "import_wandb"]


class SinkMissing(ChunkwireError):
    """A place to log to whose package is not installed."""

    code = "sink_missing"


class Sink(Protocol):
    """Takes what a run tells."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, such as `train/loss`, after a step."""

    def image(self, step: int, name: str, picture: UInt8[np.ndarray, "height width 3"]) -> None:
        """A picture."""

    def close(self) -> None:
        """Write what is not yet written."""


class TensorBoard:
    """Event files in `<run>/tensorboard`, for `tensorboard --logdir`.

    Written in the thread that tells it: tensorboardX's own writer has one that dies of a full disk unheard, and then
    keeps whoever tells it something waiting for ever.

    Args:
        directory: the run's folder.
        first: step that the run begins or goes on with; what an earlier part told of later steps is not shown.
    """

    def __init__(self, directory: Path, first: int) -> None:
        folder = directory / "tensorboard"
        folder.mkdir(exist_ok=True)
        self._file = EventsWriter(str(folder / "events"))
        if first:
            self._write(first, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        parts = [part for name, value in values.items() for part in summary.scalar(name, value).value]
        self._write(step, summary=Summary(value=parts))
        self._file.flush()

    def image(self, step: int, name: str, picture: UInt8[np.ndarray, "height width 3"]) -> None:
        self._write(step, summary=summary.image(name, picture, dataformats="HWC"))

    def close(self) -> None:
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(Event(step=step, wall_time=time.time(), **content))


class WeightsAndBiases:
    """A run of Weights & Biases, in the project `chunkwire`; WANDB_MODE=offline writes to the run's folder alone.

    Args:
        directory: the run's folder.
        name: of the run, `experiment/run`.
        run_id: a resumed run goes on under the same one.
        settings: of the experiment.

    Raises:
        SinkMissing: `wandb` is not installed.
    """

    def __init__(self, directory: Path, name: str, run_id: str, settings: Mapping[str, Any]) -> None:
        self._wandb = import_wandb()
        self._run = self._wandb.init(
            project="chunkwire", name=name, id=run_id, resume="allow", dir=str(directory), config=dict(settings)
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def image(self, step: int, name: str, picture: UInt8[np.ndarray, "height width 3"]) -> None:
        self._run.log({name: self._wandb.Image(picture)}, step=step)

    def close(self) -> None:
        self._run.finish()


def import_wandb() -> Any:
    """The package wandb, imported only here: it is heavy, and wanted by few. Raises `SinkMissing`."""
    try:
        import wandb
    except ImportError as error:
        raise SinkMissing("--wandb needs the package wandb: pip install wandb, or leave --wandb out.") from error
    return wandb
