"""The folder of one run, `<runs>/<experiment>/<name>/`: its settings, its facts, `metrics.jsonl` and the steps."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from flax import traverse_util

from policy_protocol.errors import ChunkwireError, SpecInvalid
from policy_protocol.json_tree import from_json, to_json
from training.checkpoints import CannotResume
from training.experiment import Experiment, ExperimentInvalid
from training.parallel.processes import ProcessesDiffer
from training.pi05.checkpoint.step_directory import EXPERIMENT_FILE

__all__ = ["MetricsLog", "RunExists", "RunFacts", "begin_run", "check_run", "join_run", "run_directory"]

_RUN_FILE = "run.json"
_METRICS_FILE = "metrics.jsonl"
_UNFINISHED = ".new"
_VISIBLE_SECONDS = 60
"""A file that another machine wrote to a shared disk may take so long to be seen."""
_MAY_CHANGE = frozenset(
    {"steps", "save_every", "log_every", "validate_every", "keep_every", "dataset", "tokenizer"}
    | {"accumulate_steps", "fsdp_devices", "model.remat", "model.remat_policy", "unroll_layers"}
    | {f"optimizer.{name}" for name in ("peak_lr", "end_lr", "warmup_steps", "decay_steps")}
)
"""Settings that a resumed run may have otherwise than it began. Paths may move: what they hold is in `RunFacts`. How
a step is laid out over time and devices changes its numbers by no more than rounding."""


class RunExists(ChunkwireError):
    """The run's folder is there already and nothing was said about it."""

    code = "run_exists"


@dataclass(frozen=True)
class RunFacts:
    """What a run is beyond its settings (`run.json`)."""

    dataset_fingerprint: str
    tokenizer_hash: str
    run_id: str = ""
    """Drawn when the run began."""
    skipped_frames: int = 0
    """Frames of all cameras that cannot be decoded and are not trained on (`--skip-corrupt`)."""
    sample_rows: str = ""
    """Hash of the rows at which samples begin; empty in a run of before it was noted, which is not compared."""


def run_directory(runs: Path, experiment: Experiment, name: str) -> Path:
    """Where a run goes. Raises `ExperimentInvalid` for a name that is no plain folder name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ExperimentInvalid(
            f"--exp-name {name!r} is no name for a run: use letters, digits, '-', '_' and '.', a letter or digit first."
        )
    return runs / experiment.name / name


def check_run(directory: Path, experiment: Experiment, *, overwrite: bool, resume: bool) -> None:
    """Refuse at once what `begin_run` would refuse after the data is prepared; changes nothing.

    Raises:
        RunExists: the folder exists and neither flag was given, or it is no run and must not be deleted.
        CannotResume: `resume` without a run, or of a run that began with other settings (names them).
    """
    is_run = (directory / EXPERIMENT_FILE).exists()
    if resume:
        if not is_run:
            raise CannotResume(f"There is no run at {directory} to resume. Leave out --resume to start it.")
        _check_settings(directory, experiment)
    elif not directory.exists() or _is_empty(directory):
        return
    elif not overwrite:
        raise RunExists(
            f"The run {directory} exists. Pass --resume to go on with it, --overwrite to delete it and start anew, "
            "or another --exp-name."
        )
    elif not is_run:
        raise RunExists(f"{directory} is no run (it has no {EXPERIMENT_FILE}), so --overwrite does not delete it.")


def _is_empty(directory: Path) -> bool:
    """Whether it holds nothing but what a run that was killed as it began had not finished writing."""
    return directory.is_dir() and all(path.name == f"{EXPERIMENT_FILE}{_UNFINISHED}" for path in directory.iterdir())


def begin_run(directory: Path, experiment: Experiment, facts: RunFacts, *, overwrite: bool, resume: bool) -> RunFacts:
    """Make the run's folder, or go on with it; returns the facts with the run's id.

    Raises:
        RunExists, CannotResume: as `check_run`, and when the data, the frames of it that can be decoded or the
            tokenizer are not what the run began with.
    """
    check_run(directory, experiment, overwrite=overwrite, resume=resume)
    if resume:
        facts = _check_facts(directory, facts)
    else:
        _delete(directory)
        directory.mkdir(parents=True)
        facts = replace(facts, run_id=secrets.token_hex(8))
    _write_whole(directory / EXPERIMENT_FILE, experiment.to_json())  # from here on --overwrite knows it for a run
    if not resume:
        _write_whole(directory / _RUN_FILE, json.dumps(to_json(facts), indent=2) + "\n")
    return facts


def _delete(directory: Path) -> None:
    """At once, by another name: half a run would be one that no flag deletes. What a kill left of it goes with it."""
    replaced = directory.with_name(f".{directory.name}.replaced")  # no run's name begins with a dot
    if replaced.exists():
        shutil.rmtree(replaced)
    if directory.exists():
        directory.rename(replaced)
        shutil.rmtree(replaced)


def _write_whole(path: Path, text: str) -> None:
    """A kill or a full disk leaves what was there before: without it a run could not be resumed."""
    fresh = path.with_name(f"{path.name}{_UNFINISHED}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def join_run(directory: Path, facts: RunFacts, run_id: str) -> RunFacts:
    """Take part, as another process, in the run that process 0 began; changes nothing.

    Args:
        directory: the run's folder.
        facts: of the data as this process sees it.
        run_id: of the run that was begun.

    Raises:
        ProcessesDiffer: the folder is not the one that process 0 sees.
        CannotResume: the data, the frames that can be decoded or the tokenizer are not what process 0 has.
    """
    until = time.monotonic() + _VISIBLE_SECONDS
    while _run_id(directory) != run_id:
        if time.monotonic() > until:
            raise ProcessesDiffer(
                f"{directory} is not the folder in which process 0 began the run. "
                "All processes need the same one, on a disk that their machines share (--runs)."
            )
        time.sleep(0.2)
    return _check_facts(directory, facts)


def _run_id(directory: Path) -> str | None:
    try:
        return str(_read(directory / _RUN_FILE)["run_id"])
    except CannotResume:
        return None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotResume(f"{path} is missing or damaged ({error}). Start anew with --overwrite.") from error


def _began_with(directory: Path) -> Any:
    """The settings of the run; those that are younger than it have their defaults."""
    tree = _read(directory / EXPERIMENT_FILE)
    try:
        return to_json(from_json(Experiment, tree))
    except SpecInvalid:
        return tree  # of a version with other settings: they are told as changed


def _check_settings(directory: Path, experiment: Experiment) -> None:
    before, now = (traverse_util.flatten_dict(tree, sep=".") for tree in (_began_with(directory), to_json(experiment)))
    changed = [
        f"{name} was {_told(before.get(name))}, is {_told(now.get(name))}"
        for name in sorted(before.keys() | now.keys())
        if name not in _MAY_CHANGE and before.get(name) != now.get(name)
    ]
    if changed:
        raise CannotResume(
            f"The run {directory} began with other settings: {'; '.join(changed)}. "
            "Use the same ones, or another --exp-name."
        )


def _told(value: Any) -> str:
    return "empty" if value == "" else str(value)


def _check_facts(directory: Path, facts: RunFacts) -> RunFacts:
    try:
        before = from_json(RunFacts, _read(directory / _RUN_FILE))
    except SpecInvalid as error:
        raise CannotResume(f"{directory / _RUN_FILE} is damaged: {error} Start anew with --overwrite.") from error
    for name, what in (("dataset_fingerprint", "dataset"), ("tokenizer_hash", "tokenizer")):
        if getattr(before, name) != getattr(facts, name):
            raise CannotResume(
                f"The {what} is not the one that the run {directory} began with. "
                f"Pass that one, or start anew with --overwrite or another --exp-name."
            )
    if before.sample_rows and before.sample_rows != facts.sample_rows:
        raise CannotResume(
            f"The run {directory} began without {before.skipped_frames} frames that could not be decoded; here "
            f"{facts.skipped_frames} cannot be, and the rows that are left to train on are not the same. Every process "
            "and every --resume needs the same ones: copy the dataset from where the run began, or start anew with "
            "--overwrite or another --exp-name."
        )
    return before


class MetricsLog:
    """`metrics.jsonl`, or another file of that kind: one line a logged step, flushed as it is written; what is beyond a
    resumed step is dropped."""

    def __init__(self, directory: Path, from_step: int, file: str = _METRICS_FILE) -> None:
        path = directory / file
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < from_step]
            if kept != lines:
                _write_whole(path, "".join(kept))
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
