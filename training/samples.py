"""From a loader's batch to what the model trains on, through the very transforms that serve the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flax.struct
import numpy as np
from jaxtyping import Float, Float32

from training.data.loading.loader import Batch
from training.pi05.model.pi import ModelInput
from training.pi05.transforms.observation import ObservationTransform, Row, collate

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
    """Dataset keys to wire keys, then the policy's own transforms of observation and actions."""

    observation: ObservationTransform
    wire_keys: Mapping[str, str]
    """Dataset camera key -> wire key."""
    prompt_length: int
    """Tokens that prompts are padded to."""
    mask_padded_steps: bool
    """Steps past an episode's end weigh nothing."""
    mask_padded_dimensions: bool
    """Dimensions beyond the robot's actions weigh nothing."""

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
        return Samples(collate(rows, self.prompt_length), self._actions(batch, rows), self._weights(batch))

    def _actions(self, batch: Batch, rows: Sequence[Row]) -> Float32[np.ndarray, "batch action_horizon action_dim"]:
        start_states = np.stack([row.start_state for row in rows])
        return self.observation.actions(batch.actions, start_states).astype(np.float32)

    def _weights(self, batch: Batch) -> Float32[np.ndarray, "batch action_horizon action_dim"]:
        weights = np.ones((*batch.actions.shape[:2], self.observation.model.action_dim), np.float32)
        if self.mask_padded_steps:
            weights[batch.actions_is_pad] = 0.0
        if self.mask_padded_dimensions:
            weights[..., batch.actions.shape[-1] :] = 0.0
        return weights
