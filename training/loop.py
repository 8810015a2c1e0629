"""The training run, from a dataset to checkpoints."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from policy_protocol.errors import ChunkwireError
from training.checkpoints import RunCheckpoints
from training.data import Dataset, Loader, compute_norm_stats, default_cache_root, fingerprint, open_frame_cache
from training.data.prefetch import Prefetch
from training.experiment import Experiment
from training.pi05.checkpoint import Assets
from training.pi05.observation import ObservationTransform, trained_prompt_lengths
from training.pi05.tokenizer import Tokenizer
from training.policy_spec import WIRE_PREFIX, build_spec
from training.progress import TrainingProgress
from training.run_directory import MetricsLog, open_run
from training.samples import Samples, SampleTransform
from training.train_state import TrainState, init_state
from training.train_step import make_train_step

__all__ = ["Diverged", "train"]


class Diverged(ChunkwireError):
    """The loss became NaN or infinite."""

    code = "diverged"


@dataclass(frozen=True)
class _Inputs:
    """All that a run reads."""

    assets: Assets
    loader: Loader
    transform: SampleTransform

    def samples(self, step: int) -> Samples:
        return self.transform(self.loader.batch(step))


def train(experiment: Experiment, run: str, base: Path, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Train an experiment; returns the last step directory.

    Args:
        experiment: what to compute.
        run: name of the run, the folder `<base>/<experiment>/<run>`.
        base: where runs go.
        overwrite: delete a run of that name first.
        resume: go on from its newest checkpoint; the losses are those of an uninterrupted run.

    Raises:
        ChunkwireError: the dataset, the run's folder or the settings are not usable, or the loss is NaN (`Diverged`).
        KeyboardInterrupt: after saving the state reached.
    """
    inputs = _open_inputs(experiment, run)
    directory = base / experiment.name / run
    run_id = open_run(directory, experiment, overwrite=overwrite, resume=resume)
    key = jax.random.key(experiment.seed)
    state = init_state(experiment, jax.random.fold_in(key, 2**31 - 1))
    with RunCheckpoints(directory, inputs.assets, run_id) as checkpoints:
        if resume:
            state = checkpoints.restore(state)
        _run(experiment, inputs, state, key, checkpoints, directory)
        checkpoints.wait()
        return directory / str(checkpoints.latest)


def _open_inputs(experiment: Experiment, run: str) -> _Inputs:
    dataset = Dataset(experiment.dataset)
    tokenizer = Tokenizer.load(experiment.tokenizer)
    norm_stats = compute_norm_stats(dataset)
    spec = build_spec(experiment, dataset, norm_stats, fingerprint(dataset), run)
    observation = ObservationTransform(spec, experiment.model, norm_stats, tokenizer)
    side = experiment.model.vision.image_size
    loader = Loader(
        dataset,
        open_frame_cache(dataset, default_cache_root(), height=side, width=side),
        action_horizon=experiment.model.action_horizon,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
    )
    transform = SampleTransform(
        observation,
        norm_stats,
        wire_keys={camera.key.removeprefix(WIRE_PREFIX): camera.key for camera in spec.observation.cameras},
        prompt_length=trained_prompt_lengths(spec, tokenizer, experiment.model.max_token_len)[-1],
        mask_padding=experiment.mask_padding,
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
    saved = first
    try:
        with (
            TrainingProgress(experiment.name, first, experiment.steps) as progress,
            Prefetch(inputs.samples, first, experiment.steps, depth=2) as batches,
        ):
            clock = _Clock()
            for step in range(first, experiment.steps):
                samples = clock.waited(lambda: next(batches))
                state, metrics = step_function(state, key, samples)
                if (step + 1) % experiment.log_every == 0 or step + 1 == experiment.steps:
                    record = clock.record(step, metrics, experiment.batch_size)
                    _stop_if_diverged(record, directory, samples)
                    log.write(record)
                    progress.show(record)
                if (step + 1) % experiment.save_every == 0 or step + 1 == experiment.steps:
                    saved = checkpoints.save(state) + 1
    except KeyboardInterrupt:
        if int(state.step) > saved:
            checkpoints.save(state)
        checkpoints.wait()
        raise
    finally:
        log.close()


class _Clock:
    """Measures what a logged interval took and how much of it was waiting for data."""

    def __init__(self) -> None:
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def waited(self, take: Any) -> Samples:
        begun = time.perf_counter()
        samples: Samples = take()
        self._waited += time.perf_counter() - begun
        self._steps += 1
        return samples

    def record(self, step: int, metrics: Any, batch_size: int) -> dict[str, float]:
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
        self.__init__()
        return line


def _stop_if_diverged(record: dict[str, float], directory: Path, samples: Samples) -> None:
    if np.isfinite(record["loss"]):
        return
    batch = directory / "diverged_batch.npz"
    leaves, _ = jax.tree.flatten_with_path(samples)
    np.savez(batch, **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})
    raise Diverged(
        f"The loss is {record['loss']} at step {int(record['step'])}. The batch is saved in {batch}. "
        "Resume from the last checkpoint with a lower --set optimizer.peak_lr=…, or look at the batch."
    )
