"""Every checkpoint of a training run on the same episodes with the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from policy_protocol.errors import ChunkwireError, SpecMismatch
from policy_protocol.spec import CheckpointId
from sim_client.evaluation.checkpoints import Checkpoints
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.series import Series
from sim_client.results.options import EvaluationOptions
from sim_client.results.run_record import RunRecord

__all__ = ["Sweep"]


class Sweep:
    """A series with one evaluation per step, in `<folder>/<step>`.

    Args:
        options: of every step; the seeds and the run seed are common.
        origin: a checkpoint of the run; without it that of the first step that has results, or is served.
    """

    def __init__(
        self, folder: Path, steps: Sequence[int], options: EvaluationOptions, origin: CheckpointId | None = None
    ) -> None:
        self._origin = origin
        self.series = Series("step", folder, {str(step): options for step in steps}, self._belongs)

    @property
    def run_id(self) -> str:
        """Of the training run; empty while it is unknown."""
        return self._origin.run_id if self._origin else ""

    def run(
        self,
        checkpoints: Checkpoints,
        evaluate: Callable[[EvaluationOptions, Dial, Path], object],
        console: Console,
        *,
        overwrite: bool = False,
        stop_at: tuple[type[ChunkwireError], ...] = (),
    ) -> None:
        """Measure every step, or go on with it. One that is finished is not loaded.

        Args:
            evaluate: runs one step in the directory given.
            overwrite: measure finished steps anew.
            stop_at: errors after which the other steps have no chance either.

        Raises:
            Interrupted: Ctrl-C.
            ChunkwireError: one of `stop_at`.
        """

        def run(options: EvaluationOptions, directory: Path) -> None:
            if not overwrite and self.series.is_finished(directory.name):
                console.print(f"Step {directory.name} is finished already.", markup=False)
                return
            dial, checkpoint = checkpoints.at(int(directory.name))
            self._require_of_run(checkpoint)
            evaluate(options, dial, directory)

        self.series.run(run, console, stop_at)

    def _belongs(self, name: str, run: RunRecord) -> bool:
        checkpoint = run.spec.policy.checkpoint
        if checkpoint.step != int(name):
            return False
        self._origin = self._origin or checkpoint
        return _run_of(checkpoint) == _run_of(self._origin)

    def _require_of_run(self, checkpoint: CheckpointId) -> None:
        self._origin = self._origin or checkpoint
        if _run_of(checkpoint) != _run_of(self._origin):
            raise SpecMismatch(
                f"{checkpoint} is of another training run than {self._origin}"
                + (", though of the same name" if str(checkpoint).startswith(_name(self._origin)) else "")
                + ". A sweep is of one run: serve that one, or pass another --out."
            )


def _run_of(checkpoint: CheckpointId) -> tuple[str, str, str]:
    return checkpoint.experiment, checkpoint.run, checkpoint.run_id


def _name(checkpoint: CheckpointId) -> str:
    return f"{checkpoint.experiment}/{checkpoint.run}/"
