"""From a loader's batch to what the model trains on, through the very transforms that serve the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import flax.struct
import numpy as np
from jaxtyping import Float, Float32

from training.data.loader import Batch
from training.pi05.model.pi import ModelInput
from training.pi05.transforms.normalization import NormStats, normalize
from training.pi05.transforms.observation import ObservationTransform, collate

__all__ = ["SampleTransform", "Samples"]


class Samples(flax.struct.PyTreeNode):
    """One training batch, ready for the device."""

    inputs: ModelInput
    actions: Float[np.ndarray, "batch action_horizon action_dim"]
    """Normalised, padded with zeros to the model's width."""
    weights: Float[np.ndarray, "batch action_horizon action_dim"]
    """Weight of each number in the loss."""


@dataclass(frozen=True)
class SampleTransform:
    """Dataset keys to wire keys, then the policy's own observation transform, then the actions."""

    observation: ObservationTransform
    norm_stats: Mapping[str, NormStats]
    wire_keys: Mapping[str, str]
    """Dataset camera key -> wire key."""
    prompt_length: int
    """Tokens that prompts are padded to."""
    mask_padding: bool

    def __call__(self, batch: Batch) -> Samples:
        spec = self.observation.spec.observation
        rows = [
            self.observation(
                {
                    **{wire: batch.images[key][index] for key, wire in self.wire_keys.items()},
                    spec.state.key: batch.state[index],
                    spec.prompt.key: prompt,
                }
            )
            for index, prompt in enumerate(batch.prompts)
        ]
        actions = self._actions(batch)
        return Samples(collate(rows, self.prompt_length), actions, self._weights(batch, actions))

    def _actions(self, batch: Batch) -> Float32[np.ndarray, "batch action_horizon action_dim"]:
        kind = self.observation.spec.policy.normalization
        real = normalize(batch.actions, self.norm_stats["actions"], kind)
        padded = np.zeros((*real.shape[:2], self.observation.model.action_dim), np.float32)
        padded[..., : real.shape[-1]] = real
        return padded

    def _weights(self, batch: Batch, actions: np.ndarray) -> Float32[np.ndarray, "batch action_horizon action_dim"]:
        weights = np.ones_like(actions)
        if self.mask_padding:
            # Not the padded dimensions: the sampler integrates them too, and untrained they lead the real ones astray.
            weights[batch.actions_is_pad] = 0.0
        return weights
