"""The compiled inference: weights where they compute, one program for each shape, launched without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from training.pi05.model.attention import AttentionKernel
from training.pi05.model.config import ModelConfig
from training.pi05.model.flow import denoise
from training.pi05.model.pi import ModelInput, PiModel
from training.pi05.model.serving import ServingParams, serving_params
from training.pi05.placement import Shardings

__all__ = ["Denoiser"]


class Denoiser:
    """One copy of the weights and its compiled shapes. Not thread-safe.

    Args:
        model: sizes of the model.
        flat: its parameters by path, in the type to compute with.
        steps: Euler steps from noise to actions.
        attention: see `training.pi05.model.attention`.
        placement: where each leaf goes.
        checkpoint: name of the weights.
    """

    def __init__(
        self,
        model: ModelConfig,
        flat: Mapping[str, Array],
        steps: int,
        attention: AttentionKernel,
        placement: Shardings,
        checkpoint: str,
    ) -> None:
        self._model, self._steps, self._placement = model, steps, placement
        self._serving = self.prepared(flat), checkpoint
        self._compiled: dict[tuple[int, int], Callable[..., Array]] = {}
        network = PiModel(model, unrolled=True, kernel=attention)

        def run(weights: ServingParams, inputs: ModelInput, noise: Array) -> Array:
            return denoise(network, weights.params, inputs, noise, steps, weights.modulations)

        self._run: Any = jax.jit(run, donate_argnames="noise")

    def prepared(self, flat: Mapping[str, Array]) -> ServingParams:
        """Other weights of the same model, beside those in use: nothing is compiled anew to compute with them."""
        return serving_params(self._model, flat, self._steps, self._placement)

    def replace(self, weights: ServingParams, checkpoint: str) -> None:
        """Compute with prepared weights from here on; both change as one."""
        self._serving = weights, checkpoint

    def shards(self) -> Iterator[jax.Shard]:
        """The pieces of the weights, each on its device."""
        for leaf in jax.tree.leaves(self._serving[0]):
            yield from leaf.addressable_shards

    def compile(self, inputs: ModelInput) -> None:
        """Compile the shape of these inputs and run it once."""
        shape = inputs.tokens.shape
        if shape in self._compiled:
            return
        noise = np.zeros((shape[0], self._model.action_horizon, self._model.action_dim), np.float32)
        weights, _ = self._serving
        compiled = self._run.lower(weights, inputs=inputs, noise=noise).compile()
        jax.block_until_ready(compiled(weights, inputs=inputs, noise=noise))
        self._compiled[shape] = compiled

    def __call__(
        self, inputs: ModelInput, noise: Float[np.ndarray, "batch action_horizon action_dim"]
    ) -> tuple[Array, str]:
        """Start computing (batch, action_horizon, action_dim), a promise until it is read; and whose weights it is."""
        self.compile(inputs)
        weights, checkpoint = self._serving
        return self._compiled[inputs.tokens.shape](weights, inputs=inputs, noise=noise), checkpoint
