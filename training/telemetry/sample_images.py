"""The pictures that a run trains on, as it sees them: resized, and augmented if it augments."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import UInt8

from training.augment import augment
from training.experiment import Experiment
from training.samples import Samples

__all__ = ["sample_images"]

_SHOWN = 8


def sample_images(experiment: Experiment, samples: Samples) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
    """One picture for each camera's slot: the first samples of a batch side by side; changed at random as in training,
    though by other draws."""
    images = {slot: frames[:_SHOWN] for slot, frames in samples.inputs.images.items()}
    if experiment.augment:
        changed = jax.jit(augment)(jax.random.key(experiment.seed), images)
        images = {slot: _bytes(np.asarray(frames)) for slot, frames in changed.items()}
    return {slot: np.concatenate(list(frames), axis=1) for slot, frames in images.items()}


def _bytes(frames: np.ndarray) -> np.ndarray:
    """[-1, 1] to 0..255."""
    return np.clip((frames + 1) * 127.5, 0, 255).round().astype(np.uint8)
