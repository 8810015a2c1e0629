"""All that a run reads: its datasets' batches as samples, and what goes beside the weights of each checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from training.check import check_before_training
from training.data import Loader, MixedLoader, default_cache_root, open_data
from training.experiment import Experiment
from training.pi05.checkpoint.step_directory import Assets
from training.pi05.transforms.observation import ObservationTransform, trained_prompt_lengths
from training.pi05.transforms.tokenizer import Tokenizer, check_vocabulary
from training.policy_spec import WIRE_PREFIX, build_spec
from training.run_directory import RunFacts
from training.samples import Samples, SampleTransform
from training.state_noise import StateNoise

__all__ = ["Inputs", "open_inputs"]


@dataclass(frozen=True)
class Inputs:
    """A run's data, and the transform that makes samples of it."""

    assets: Assets
    loader: Loader | MixedLoader
    validation: Loader | MixedLoader | None
    """Over the held-out episodes; None when there are none."""
    transform: SampleTransform
    skipped_frames: int
    """Frames that cannot be decoded and are left out."""
    rows: slice
    """Of every batch, the rows that this process reads."""
    state_noise: StateNoise
    """On the states that are trained on; those to validate on are as they were recorded."""

    def samples(self, step: int) -> Samples:
        """This process's rows of the batch of a step; the batch is the same however many processes share it."""
        batch = self.loader.samples(self.loader.rows(step)[self.rows])
        return self.transform(self.state_noise.added(batch, step, self.rows))

    @property
    def facts(self) -> RunFacts:
        """What a resumed run must find unchanged."""
        tokenizer = hashlib.sha256(self.assets.tokenizer.model).hexdigest()[:16]
        fingerprint = self.assets.spec.policy.dataset_fingerprint
        return RunFacts(fingerprint, tokenizer, skipped_frames=self.skipped_frames, sample_rows=self._sample_rows)

    @property
    def _sample_rows(self) -> str:
        """Hash of the rows at which samples to train on and to validate on begin."""
        digest = hashlib.sha256(self.loader.anchors.tobytes())
        if self.validation is not None:
            digest.update(b"validation" + self.validation.anchors.tobytes())
        return digest.hexdigest()[:16]


def open_inputs(
    experiment: Experiment,
    run: str,
    ignore_checks: Collection[str] | None = (),
    *,
    skip_corrupt: bool = False,
    rows: slice = slice(None),
) -> Inputs:
    """Open an experiment's datasets, check them and decode their frames, unless that is done.

    Args:
        ignore_checks: names of checks whose errors do not stop the run; None checks nothing.
        skip_corrupt: leave out the frames that cannot be decoded; how many is told on standard error.
        rows: of every batch, those that this process reads.

    Raises:
        DatasetUnsound: a check found an error.
        DatasetsDiffer: the datasets cannot be mixed; shows a table.
        ChunkwireError: a dataset or the tokenizer is not there, is damaged, or does not fit the model.
    """
    data = open_data(experiment.datasets, seed=experiment.seed, held_out=experiment.held_out)
    tokenizer = Tokenizer.load(experiment.tokenizer)
    check_vocabulary(tokenizer, experiment.model.vocabulary)
    if ignore_checks is not None:
        ignored = {*ignore_checks, *(["corrupt-frame"] if skip_corrupt else [])}
        for dataset in data.mixture.datasets:
            check_before_training(dataset, experiment.model.action_horizon, ignored)
    norm_stats = data.norm_stats()
    spec = build_spec(experiment, data.mixture, norm_stats, data.mixture.fingerprint, run)
    observation = ObservationTransform(spec, experiment.model, norm_stats, tokenizer)
    prompt_length = trained_prompt_lengths(spec, tokenizer, experiment.model.max_token_len)[-1]
    wire_keys = {camera.key.removeprefix(WIRE_PREFIX): camera.key for camera in spec.observation.cameras}
    transform = SampleTransform(
        observation, wire_keys, prompt_length, experiment.mask_padded_steps, experiment.mask_padded_dimensions
    )
    assets = Assets(experiment.asset_id, norm_stats, spec, tokenizer)
    side = experiment.model.vision.image_size
    loaders = data.loaders(
        default_cache_root(),
        height=side,
        width=side,
        action_horizon=experiment.model.action_horizon,
        batch_size=experiment.batch_size,
        skip_corrupt=skip_corrupt,
    )
    noise = StateNoise(
        experiment.state_noise, norm_stats["state"], spec.policy.normalization, experiment.seed, experiment.batch_size
    )
    return Inputs(assets, loaders.train, loaders.validation, transform, loaders.corrupt_frames, rows, noise)
