"""A run's checkpoints: saved whole or not at all, in openpi's layout, and restored to go on training."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import flax.struct
import jax
import orbax.checkpoint as ocp

from policy_protocol.errors import ChunkwireError
from training.exhaustion import NO_ROOM
from training.experiment import Experiment
from training.parallel.processes import EndedTogether
from training.pi05.checkpoint.assets_item import AssetsHandler, SaveAssets
from training.pi05.checkpoint.step_directory import EXPERIMENT_FILE, Assets, steps_in, write_assets
from training.pi05.checkpoint.weights import as_saved
from training.pi05.listing import counted
from training.pi05.model.params import flatten, unflatten
from training.retention import Retention
from training.train_state import TrainState

__all__ = ["CannotResume", "RunCheckpoints", "SaveFailed"]

_SAVE_SECONDS = 6 * 60 * 60
"""A save that is not done by then has failed. orbax allows 20 minutes; a full state on a slow disk takes longer."""


class CannotResume(ChunkwireError):
    """There is nothing to resume, or what is there belongs to another model."""

    code = "cannot_resume"


class SaveFailed(ChunkwireError):
    """A step could not be written, most often for want of room; the steps before it are whole."""

    code = "save_failed"


class RunCheckpoints:
    """The step directories of one run, written in the background; the processes of a run save and restore together.

    Args:
        directory: the run's folder.
        assets: what goes beside the weights of every step; the spec's run id and step are filled in.
        experiment: what the run computes, written beside them.
        run_id: of the run.
        keep: how many of the latest steps stay, beside the best and those of `keep_every`.
    """

    def __init__(self, directory: Path, assets: Assets, experiment: Experiment, run_id: str, keep: int = 3) -> None:
        self._assets = assets
        self._experiment, self._run_id = experiment, run_id
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            item_handlers={
                "assets": AssetsHandler(),
                "params": ocp.PyTreeCheckpointHandler(),
                "train_state": ocp.PyTreeCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=Retention(directory, keep, experiment.keep_every),
                create=False,
                cleanup_tmp_directories=True,  # of saves that a kill or a full disk cut short
                async_options=ocp.AsyncOptions(timeout_secs=_SAVE_SECONDS),
            ),
        )

    def __enter__(self) -> RunCheckpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if jax.process_count() > 1 and error is not None and not isinstance(error, EndedTogether):
            return  # closing waits for all processes, and the others do not come to it
        try:
            self._manager.close()
        except Exception as failure:  # of a save in the background; what ended the run is told before it
            if error is None:
                raise self._failed(failure) from failure

    @property
    def latest(self) -> int | None:
        """Number of the newest complete step directory."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, state: TrainState) -> int:
        """Start saving; the directory N holds the state after N + 1 updates. Returns N.

        Raises:
            SaveFailed: this save could not begin, or the one before it could not be finished.
        """
        step = int(state.step) - 1
        items = ocp.args.Composite(
            assets=SaveAssets(functools.partial(self._write_assets, step)),
            params=ocp.args.PyTreeSave(as_saved(state.served_params)),
            train_state=ocp.args.PyTreeSave(_saved_state(state)),
        )
        with self._failure_told():
            self._manager.save(step, args=items)
        return step

    def wait(self) -> None:
        """Until everything started is on disk. Raises `SaveFailed`."""
        with self._failure_told():
            self._manager.wait_until_finished()

    def restore(self, template: TrainState) -> TrainState:
        """The newest state. The template gives the shapes, and may give shardings: it needs no arrays (`eval_shape`).

        Raises:
            CannotResume: no step was saved yet, it is damaged, or its tree is not the template's (names the leaves).
        """
        step = self.latest
        if step is None:
            raise CannotResume(f"{self._manager.directory} holds no saved step to resume. Start anew with --overwrite.")
        trees = {"train_state": _saved_state(template), "params": as_saved(template.served_params)}
        args = {
            name: ocp.args.PyTreeRestore(tree, restore_args=jax.tree.map(_restore_argument, tree))
            for name, tree in trees.items()
        }
        folder = self._manager.directory / str(step)
        with _damage_told(folder):
            stored = self._manager.item_metadata(step)
            held = {name: _shapes(stored[name].tree) for name in trees}
        for name in ("params", "train_state"):  # a leaf of the weights is in the optimizer's state thrice more
            _check_leaves(_shapes(trees[name]), held[name], folder / name)
        with _damage_told(folder):
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        return _restored_state(template, restored["train_state"], restored["params"])

    @contextmanager
    def _failure_told(self) -> Iterator[None]:
        try:
            yield
        except Exception as failure:  # orbax and tensorstore raise a dozen kinds for a disk that takes no more
            raise self._failed(failure) from failure

    def _failed(self, failure: Exception) -> SaveFailed:
        directory = self._manager.directory
        steps, number = steps_in(Path(directory)), _number(failure)
        reason = str(failure)[:200].rstrip(".") if number is None else os.strerror(number)
        kept = f"Step {steps[-1]} is whole" if steps else "No step is saved yet"
        remedy = "Make room on the disk" if number in NO_ROOM else "Mend that"
        return SaveFailed(
            f"A step could not be saved in {directory} ({reason or type(failure).__name__}). {kept}. {remedy}, then "
            f"{'go on with --resume' if steps else 'start anew with --overwrite'}."
        )

    def _write_assets(self, step: int, folder: Path) -> None:
        if jax.process_index() != 0:
            return
        spec = self._assets.spec
        checkpoint = dataclasses.replace(spec.policy.checkpoint, step=step, run_id=self._run_id)
        policy = dataclasses.replace(spec.policy, checkpoint=checkpoint)
        write_assets(folder, dataclasses.replace(self._assets, spec=dataclasses.replace(spec, policy=policy)))
        (folder / EXPERIMENT_FILE).write_text(self._experiment.to_json(), encoding="utf-8")


def _number(failure: Exception) -> int | None:
    """The system's number of what happened; its words are without the path of orbax's own file that it happened to."""
    told = re.search(r"\[os_error_code='(\d+)'", str(failure))  # tensorstore's way of saying it
    number: int | None = int(told[1]) if told else getattr(failure, "errno", None)
    return number


@contextmanager
def _damage_told(folder: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # orbax and tensorstore raise a dozen kinds for a damaged file
        raise CannotResume(
            f"{folder} cannot be restored: it is damaged ({str(error)[:200]}). "
            "Delete that folder to resume from the step before, or start anew with --overwrite."
        ) from error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """By path, whether the tree's nodes are classes or, as on disk, maps and lists."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def _check_leaves(expected: Mapping[str, tuple[int, ...]], held: Mapping[str, tuple[int, ...]], item: Any) -> None:
    wrong = [
        f"{path.removesuffix('/value')} is {held[path]}, expected {expected[path]}"
        for path in sorted(expected.keys() & held.keys())
        if held[path] != expected[path]
    ]
    missing, unexpected = (
        sorted(path.removesuffix("/value") for path in paths)
        for paths in (expected.keys() - held.keys(), held.keys() - expected.keys())
    )
    lines = [
        *counted("missing", missing),
        *counted("unexpected", unexpected),
        *counted("of the wrong shape", wrong),
    ]
    if lines:
        raise CannotResume(
            f"{item} does not fit this experiment. {' '.join(lines)} "
            "Resume with the settings that the run began with, or start anew with --overwrite."
        )


def _restore_argument(leaf: Any) -> ocp.ArrayRestoreArgs:
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype)


class _SavedState(flax.struct.PyTreeNode):
    """A train state as openpi writes it; its order of fields is that of the file."""

    step: Any
    params: Any
    """With averaging, `params/` holds the averaged weights and this the raw ones; else nothing."""
    model_def: None
    opt_state: Any
    ema_params: None


def _saved_state(state: TrainState) -> _SavedState:
    params = {} if state.ema_params is None else _with_value(state.params)
    moments = jax.tree.map(_named, state.opt_state, is_leaf=lambda node: isinstance(node, dict))
    return _SavedState(state.step, params, None, moments, None)


def _named(node: Any) -> Any:
    """AdamW's moments are trees like the parameters, and are written like them."""
    return _with_value(node) if isinstance(node, dict) else node


def _restored_state(template: TrainState, saved: _SavedState, served: dict[str, Any]) -> TrainState:
    served_params = _without_value(served["params"])
    averages = template.ema_params is not None
    opt_state = jax.tree.unflatten(jax.tree.structure(template.opt_state), jax.tree.leaves(saved.opt_state))
    params = _without_value(saved.params) if averages else served_params
    return TrainState(saved.step, params, opt_state, _averaged(template, served_params) if averages else None)


def _averaged(template: TrainState, served_params: Any) -> Any:
    """Without the frozen leaves, which are served as they are."""
    trained = flatten(template.ema_params)
    return unflatten({path: leaf for path, leaf in flatten(served_params).items() if path in trained})


def _with_value(tree: Any) -> Any:
    return as_saved(tree)["params"]


def _without_value(tree: Any) -> Any:
    return unflatten({path.removesuffix("/value"): leaf for path, leaf in flatten(tree).items()})
