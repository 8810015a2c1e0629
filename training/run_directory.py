"""The folder of one run: `<base>/<experiment>/<name>/` with `experiment.json`, `metrics.jsonl` and the steps."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import IO, Any

from policy_protocol.errors import ChunkwireError
from training.checkpoints import CannotResume
from training.experiment import Experiment

__all__ = ["MetricsLog", "RunExists", "open_run"]

_EXPERIMENT_FILE = "experiment.json"
_METRICS_FILE = "metrics.jsonl"
_RUN_ID_FILE = "run_id"


class RunExists(ChunkwireError):
    """The run's folder is there already and nothing was said about it."""

    code = "run_exists"


def open_run(directory: Path, experiment: Experiment, *, overwrite: bool, resume: bool) -> str:
    """Make the run's folder, or check that it may be gone on with. Returns the run's id, drawn when it began.

    Raises:
        RunExists: it exists, and neither flag was given.
        CannotResume: `resume` without a run, or of a run that began with other settings (names them).
    """
    if resume:
        if not (directory / _EXPERIMENT_FILE).exists():
            raise CannotResume(f"There is no run at {directory} to resume. Leave out --resume to start it.")
        _check_same(directory, experiment)
        return (directory / _RUN_ID_FILE).read_text(encoding="utf-8").strip()
    if directory.exists() and not overwrite:
        raise RunExists(
            f"The run {directory} exists. Pass --resume to go on with it, --overwrite to delete it and start anew, "
            "or another --exp-name."
        )
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    run_id = secrets.token_hex(8)
    (directory / _RUN_ID_FILE).write_text(run_id + "\n", encoding="utf-8")
    (directory / _EXPERIMENT_FILE).write_text(experiment.to_json(), encoding="utf-8")
    return run_id


_MAY_CHANGE = frozenset({"steps", "save_every", "log_every", "dataset", "tokenizer"})
"""Settings that a resumed run may have otherwise than it began; paths may have moved."""


def _check_same(directory: Path, experiment: Experiment) -> None:
    before = json.loads((directory / _EXPERIMENT_FILE).read_text(encoding="utf-8"))
    now = json.loads(experiment.to_json())
    changed = [
        f"{name} was {before.get(name)}, is {now[name]}"
        for name in now
        if name not in _MAY_CHANGE and before.get(name) != now[name]
    ]
    if changed:
        raise CannotResume(
            f"The run {directory} began with other settings: {'; '.join(changed)}. "
            "Use the same ones, or another --exp-name."
        )


class MetricsLog:
    """`metrics.jsonl`: one line a logged step, flushed as it is written; what is beyond a resumed step is dropped."""

    def __init__(self, directory: Path, from_step: int) -> None:
        path = directory / _METRICS_FILE
        kept = []
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < from_step]
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._file.writelines(kept)
        self._file.flush()

    def write(self, record: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
