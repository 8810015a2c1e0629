"""The training run, from a dataset to checkpoints."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np

from policy_protocol.errors import ChunkwireError
from training.checkpoints import RunCheckpoints
from training.data import Dataset, Loader, compute_norm_stats, default_cache_root, fingerprint, open_frame_cache
from training.data.prefetch import Prefetch
from training.experiment import Experiment
from training.init_report import report_lines, write_report
from training.initial_params import InitialParams
from training.pi05.checkpoint.step_directory import Assets
from training.pi05.model.params import param_shapes, unflatten
from training.pi05.transforms.observation import ObservationTransform, trained_prompt_lengths
from training.pi05.transforms.tokenizer import Tokenizer, check_vocabulary
from training.policy_spec import WIRE_PREFIX, build_spec
from training.progress import TrainingProgress
from training.run_directory import MetricsLog, RunFacts, begin_run, check_run, run_directory
from training.samples import Samples, SampleTransform
from training.stop_signal import Stopped, StopSignal
from training.train_state import TrainState, init_state
from training.train_step import make_train_step

__all__ = ["Diverged", "train"]

Record: TypeAlias = Mapping[str, float]


class Diverged(ChunkwireError):
    """The loss, the gradient or the parameters became NaN or infinite."""

    code = "diverged"


@dataclass(frozen=True)
class _Inputs:
    """All that a run reads."""

    assets: Assets
    loader: Loader
    transform: SampleTransform

    def samples(self, step: int) -> Samples:
        return self.transform(self.loader.batch(step))

    @property
    def facts(self) -> RunFacts:
        tokenizer = hashlib.sha256(self.assets.tokenizer.model).hexdigest()[:16]
        return RunFacts(self.assets.spec.policy.dataset_fingerprint, tokenizer)


def train(experiment: Experiment, run: str, base: Path, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Train an experiment; returns the last step directory.

    Args:
        experiment: what to compute.
        run: name of the run, the folder `<base>/<experiment>/<run>`.
        base: where runs go.
        overwrite: delete a run of that name first.
        resume: go on from its newest checkpoint; the losses are those of an uninterrupted run.

    Raises:
        ChunkwireError: the dataset, the weights, the run's folder or the settings are not usable, or the run diverged
            (`Diverged`).
        Stopped: a signal ended the run; the state reached is saved.
    """
    directory = run_directory(base, experiment, run)
    check_run(directory, experiment, overwrite=overwrite, resume=resume)
    initial = None if resume else InitialParams.plan(experiment)
    inputs = _open_inputs(experiment, run)
    key = jax.random.key(experiment.seed)
    state = _state_shapes(experiment) if initial is None else _first_state(experiment, initial, key)
    facts = begin_run(directory, experiment, inputs.facts, overwrite=overwrite, resume=resume)
    with RunCheckpoints(directory, inputs.assets, experiment, facts.run_id) as checkpoints:
        if initial is None:
            state = checkpoints.restore(state)
        else:
            write_report(initial, directory)
        _run(experiment, inputs, state, key, checkpoints, directory)
        checkpoints.wait()
        return directory / str(checkpoints.latest)


def _first_state(experiment: Experiment, initial: InitialParams, key: jax.Array) -> TrainState:
    for line in report_lines(initial):
        print(line, file=sys.stderr, flush=True)
    state = init_state(experiment, initial.make(jax.random.fold_in(key, 2**31 - 1)))
    # Restored leaves are bound to their device and made ones are not: of one kind, or the step is compiled twice.
    return jax.device_put(state, jax.devices()[0])


def _state_shapes(experiment: Experiment) -> TrainState:
    """What a restored state must look like, without a second one in memory."""
    return jax.eval_shape(lambda params: init_state(experiment, params), unflatten(param_shapes(experiment.model)))


def _open_inputs(experiment: Experiment, run: str) -> _Inputs:
    dataset = Dataset(experiment.dataset)
    tokenizer = Tokenizer.load(experiment.tokenizer)
    check_vocabulary(tokenizer, experiment.model.vocabulary)
    norm_stats = compute_norm_stats(dataset)
    spec = build_spec(experiment, dataset, norm_stats, fingerprint(dataset), run)
    observation = ObservationTransform(spec, experiment.model, norm_stats, tokenizer)
    prompt_length = trained_prompt_lengths(spec, tokenizer, experiment.model.max_token_len)[-1]
    side = experiment.model.vision.image_size
    loader = Loader(
        dataset,
        open_frame_cache(dataset, default_cache_root(), height=side, width=side),
        action_horizon=experiment.model.action_horizon,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
    )
    wire_keys = {camera.key.removeprefix(WIRE_PREFIX): camera.key for camera in spec.observation.cameras}
    transform = SampleTransform(
        observation, wire_keys, prompt_length, experiment.mask_padded_steps, experiment.mask_padded_dimensions
    )
    return _Inputs(Assets(experiment.asset_id, norm_stats, spec, tokenizer), loader, transform)


def _run(
    experiment: Experiment,
    inputs: _Inputs,
    state: TrainState,
    key: jax.Array,
    checkpoints: RunCheckpoints,
    directory: Path,
) -> None:
    step_function, first = make_train_step(experiment), int(state.step)
    log = MetricsLog(directory, first)
    try:
        with (
            StopSignal() as stop,
            TrainingProgress(experiment.name, first, experiment.steps) as progress,
            Prefetch(inputs.samples, first, experiment.steps, depth=2) as batches,
        ):
            clock = _Clock()
            for step in range(first, experiment.steps):
                samples = clock.waited(lambda: next(batches))
                state, metrics = step_function(state, key, samples)
                last, stopped_by = step + 1 == experiment.steps, stop.number  # read once: it may change at any line
                save = last or stopped_by is not None or (step + 1) % experiment.save_every == 0
                if save or (step + 1) % experiment.log_every == 0:
                    record = clock.record(step, metrics, experiment.batch_size)
                    _stop_if_diverged(record, directory, samples)
                    log.write(dict(record))
                    progress.show(record)
                if save:
                    checkpoints.save(state)
                if stopped_by is not None and not last:
                    progress.say(f"stopping: saving step {step}")
                    checkpoints.wait()
                    raise Stopped(f"stopped; {directory / str(step)} is saved. Go on with --resume.", stopped_by)
    finally:
        log.close()


class _Clock:
    """Measures what a logged interval took and how much of it was waiting for data."""

    def __init__(self) -> None:
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def waited(self, take: Callable[[], Samples]) -> Samples:
        begun = time.perf_counter()
        samples = take()
        self._waited += time.perf_counter() - begun
        self._steps += 1
        return samples

    def record(self, step: int, metrics: Mapping[str, jax.Array], batch_size: int) -> Record:
        """The line of a step; reading the metrics waits for the device, so the times are real."""
        values = {name: float(value) for name, value in metrics.items()}
        elapsed = time.perf_counter() - self._start
        line = {
            "step": step,
            **values,
            "step_seconds": elapsed / self._steps,
            "samples_per_second": batch_size * self._steps / elapsed,
            "data_wait_share": self._waited / elapsed,
        }
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0
        return line


def _stop_if_diverged(record: Record, directory: Path, samples: Samples) -> None:
    wrong = [name for name in ("loss", "grad_norm", "param_norm") if not np.isfinite(record[name])]
    if not wrong:
        return
    batch = directory / "diverged_batch.npz"
    leaves, _ = jax.tree.flatten_with_path(samples)
    np.savez(batch, **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})
    raise Diverged(
        f"{wrong[0]} is {record[wrong[0]]} at step {int(record['step'])}; it became so since the last logged step. "
        f"The batch of this step is saved in {batch}. Go on from the last checkpoint with a lower rate: "
        "--resume --set optimizer.peak_lr=…"
    )
