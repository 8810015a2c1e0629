"""An experiment: everything that decides what a training run computes, as one frozen value.

It is saved in the run's folder and its facts in each checkpoint's spec. Those that ship are in `training/experiments/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from policy_protocol.errors import ChunkwireError, did_you_mean
from policy_protocol.json_tree import from_json, to_json
from training.pi05.model.config import ModelConfig
from training.pi05.transforms.normalization import NormKind

__all__ = ["Experiment", "ExperimentInvalid", "OptimizerConfig", "override"]


class ExperimentInvalid(ChunkwireError):
    """An experiment that does not exist, or a setting that it does not have."""

    code = "experiment_invalid"


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW under a warm-up and a cosine decay, with gradient clipping and averaged weights; openpi's defaults."""

    peak_lr: float = 2.5e-5
    end_lr: float = 2.5e-6
    warmup_steps: int = 1_000
    decay_steps: int | None = None
    """Step at which the cosine reaches `end_lr`; None means the run's last."""
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-10
    clip_norm: float = 1.0
    """Largest global gradient norm."""
    ema_decay: float | None = 0.99
    """Decay of the averaged weights, which are the ones that are served; None turns averaging off."""


@dataclass(frozen=True)
class Experiment:
    """One way to train a policy."""

    name: str
    model: ModelConfig
    dataset: str
    """LeRobot datasets to train on, unless `--dataset` says otherwise: paths or Hub ids `OWNER/NAME[@REVISION]`, with
    commas between them. Each may have `=WEIGHT` behind it, its share of the samples relative to the others' (1)."""
    tokenizer: str = "paligemma"
    """`paligemma`, `small`, or a path or URL of a sentencepiece model; it is copied into every checkpoint."""
    asset_id: str = "maniskill"
    """Folder of the norm stats in a checkpoint's assets."""
    normalization: NormKind | None = None
    """None takes openpi's of the family, quantiles for Pi0.5 and z-scores for Pi0; it is never None once made."""
    discrete_state_input: bool = True
    """Write the normalised state into the prompt (Pi0.5)."""
    state_noise: float = 0.0
    """Standard deviation of the noise on the states that are trained on, in normalised units: 1 is half of the range of
    the demonstrations. A number in the prompt is a word of its own to a model from scratch; without noise it learns
    the demonstrations' states by heart."""
    batch_size: int = 32
    steps: int = 30_000
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mask_padded_steps: bool = False
    """Leave steps past an episode's end out of the loss. openpi keeps them in: there the last action is repeated."""
    mask_padded_dimensions: bool = False
    """Leave the dimensions that pad actions to the model's width out of the loss. openpi keeps them in, and so should
    you: the sampler integrates them too, and untrained they measurably lead the real ones astray."""
    draws_per_sample: int = 1
    """Noises and times that each sample of a batch is trained at, in one update: the prefix is computed once for all of
    them. openpi draws one; where the prefix costs most, more of them are cheap and make the gradient less random."""
    augment: bool = False
    """Crop, turn and recolour the training images at random. openpi always does: set it to train as openpi trains.
    A batch of 32 with two 224x224 cameras costs 0.2 s on two CPU cores."""
    shift_pixels: int = 0
    """Move each training image by up to so many whole pixels at random, at the model's image size, before `augment`;
    0 moves none. Nearly free, and enough for a simulator, whose light and colours never change."""
    init: str = ""
    """Weights to start from: path or URL of a step directory, its `params`, a `model.safetensors` or its folder, or a
    PaliGemma `.npz`. Empty starts from scratch."""
    init_fresh: tuple[str, ...] = ()
    """Patterns of leaves that start at random where `init` has none of that shape; LoRA's that it lacks always may. A
    star stands for any letters, slashes too."""
    freeze: tuple[str, ...] | None = None
    """Patterns of leaves that stay as they start, in bfloat16 and without optimizer state; of those that match a leaf
    the last decides, and a `!` in front lets go. None freezes what openpi does: of a transformer with LoRA all but the
    factors."""
    accumulate_steps: int = 1
    """Parts that a batch is computed in, one after the other; the update is that of the whole batch."""
    unroll_layers: bool = False
    """Compute each layer with operations of its own instead of one loop over all. On a CPU a small model then trains
    half again as fast; the program grows with its depth. Nothing is recomputed then, whatever `model.remat` says."""
    fsdp_devices: int | None = None
    """Devices that a copy of the state is cut over; None takes all of one host's. The batch is cut over all devices."""
    execution_horizon: int = 10
    """Steps of a chunk that a client runs before it asks again."""
    denoising_steps: int = 10
    seed: int = 42
    held_out: float = 0.0
    """Share of each dataset's episodes to keep out of training and to validate on; 0 for none."""
    validate_every: int = 1_000
    """Steps between validations on the held-out episodes; the last step is always validated."""
    save_every: int = 1_000
    """Steps between checkpoints; the last step is always saved. Three stay, and the best by validation loss."""
    keep_every: int | None = None
    """Steps between the checkpoints that stay for good, a multiple of `save_every`; None for none."""
    log_every: int = 10
    """Steps between lines of `metrics.jsonl`."""

    def __post_init__(self) -> None:
        if self.normalization is None:  # filled in at once, so that what a run saves is explicit
            object.__setattr__(self, "normalization", "quantile" if self.model.pi05 else "zscore")
        for name in (
            "batch_size",
            "steps",
            "save_every",
            "log_every",
            "validate_every",
            "denoising_steps",
            "accumulate_steps",
            "draws_per_sample",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.fsdp_devices is not None and self.fsdp_devices < 1:
            raise ValueError(f"fsdp_devices must be at least 1 or null, not {self.fsdp_devices}.")
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate_steps {self.accumulate_steps}."
            )
        if self.init_fresh and not self.init:
            raise ValueError("init_fresh (--init-fresh) says what init (--init) may lack, but there is no init.")
        if self.keep_every is not None and (self.keep_every < 1 or self.keep_every % self.save_every):
            raise ValueError(f"keep_every {self.keep_every} is not a multiple of save_every {self.save_every}.")
        if not 0 <= self.shift_pixels < self.model.vision.image_size:
            raise ValueError(
                f"shift_pixels {self.shift_pixels} is not in 0..{self.model.vision.image_size - 1}: the model's images "
                f"have {self.model.vision.image_size} pixels."
            )
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be at least 0 and below 1, not {self.held_out}.")
        if not all(self.datasets):
            raise ValueError(f"dataset names nothing on one side of a comma: {self.dataset!r}.")
        if self.state_noise < 0:
            raise ValueError(f"state_noise must not be negative: {self.state_noise}.")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative: {self.seed}.")
        if not 0 <= self.optimizer.warmup_steps < self.decay_steps:
            raise ValueError(
                f"optimizer.warmup_steps {self.optimizer.warmup_steps} is not in 0..{self.decay_steps - 1}: "
                f"the schedule has {self.decay_steps} steps. Set optimizer.warmup_steps or steps."
            )
        if not 1 <= self.execution_horizon <= self.model.action_horizon:
            raise ValueError(
                f"execution_horizon {self.execution_horizon} is not in 1..{self.model.action_horizon} (action_horizon)."
            )

    @property
    def datasets(self) -> tuple[str, ...]:
        """Each dataset of `dataset` with its weight, as `open_data` takes them."""
        return tuple(name.strip() for name in self.dataset.split(","))

    @property
    def decay_steps(self) -> int:
        """Length of the learning-rate schedule in steps."""
        return self.optimizer.decay_steps or self.steps

    def to_json(self) -> str:
        """The text of a run's `experiment.json`."""
        return json.dumps(to_json(self), indent=2) + "\n"


def override(experiment: Experiment, settings: Sequence[str]) -> Experiment:
    """The experiment with `path=value` settings applied, such as `optimizer.peak_lr=1e-4`; null is none.

    Raises:
        ExperimentInvalid: a setting has no `=`, names no field ("Did you mean"), or its value has the wrong type.
    """
    tree = to_json(experiment)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ExperimentInvalid(f"--set takes PATH=VALUE, such as optimizer.peak_lr=1e-4, not {setting!r}.")
        *parents, leaf = path.split(".")
        branch = tree
        for parent in parents:
            branch = _child(branch, parent, path)
        _child(branch, leaf, path)
        branch[leaf] = _value(text)
    try:
        return from_json(Experiment, tree)
    except ChunkwireError as error:
        if isinstance(error.__cause__, ValueError) and not error.field:  # a field is right in itself, but not here
            raise ExperimentInvalid(f"The settings are not valid: {error.__cause__}") from error
        raise ExperimentInvalid(f"--set: {error.message}", field=error.field) from error


def _child(branch: Any, name: str, path: str) -> Any:
    if not isinstance(branch, dict) or name not in branch:
        hint = did_you_mean(name, branch) if isinstance(branch, dict) else ""
        raise ExperimentInvalid(f"--set: there is no setting {path!r}.{hint}")
    return branch[name]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
