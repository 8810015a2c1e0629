"""The compiled inference: weights where they compute, one program for each shape, launched without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from training.pi05.compile_cache import compile_kept, traced_folder
from training.pi05.model.attention import AttentionKernel
from training.pi05.model.config import ModelConfig
from training.pi05.model.flow import denoise
from training.pi05.model.pi import ModelInput, PiModel
from training.pi05.model.serving import ServingParams, serving_params
from training.pi05.placement import Shardings
from training.pi05.program_key import executable_key, program_facts, program_key
from training.pi05.traced_programs import lowered_program

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
        self._first_run: Array | None = None
        self._attention = attention

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
        """Compile the shape of these inputs and let it run once; the next one is compiled meanwhile."""
        if inputs.tokens.shape not in self._compiled:
            program = self._program(inputs)
            self.finish_compiling()
            self._first_run = program(*self._arguments(inputs))

    def finish_compiling(self) -> None:
        """Wait for the first run of what was compiled last; raises what went wrong."""
        first_run, self._first_run = self._first_run, None
        jax.block_until_ready(first_run)

    def _program(self, inputs: ModelInput) -> Callable[..., Array]:
        """The compiled program for inputs of these shapes."""
        if (program := self._compiled.get(inputs.tokens.shape)) is not None:
            return program
        facts, folder = self.facts(inputs), traced_folder()
        # cudnn's kernels hold addresses of the process that traced them
        keeps = folder is not None and self._attention != "cudnn"
        path = folder / f"denoise_{program_key(facts)}.program" if keeps else None
        name = f"denoise_{executable_key(facts)}"
        lowered = lowered_program(self._run, self._arguments(inputs), name, path, donate=2)
        self._compiled[inputs.tokens.shape] = program = compile_kept(lowered, name)
        return program

    def facts(self, inputs: ModelInput) -> dict[str, Any]:
        """All that the program for inputs of these shapes depends on."""
        function = {"model": repr(self._model), "steps": self._steps, "attention": self._attention}
        return program_facts(function, self._arguments(inputs))

    def _arguments(self, inputs: ModelInput) -> tuple[ServingParams, ModelInput, np.ndarray]:
        """What a program is traced, lowered and run with before anything is asked."""
        batch = inputs.tokens.shape[0]
        noise = np.zeros((batch, self._model.action_horizon, self._model.action_dim), np.float32)
        return self._serving[0], inputs, noise

    def _run(self, weights: ServingParams, inputs: ModelInput, noise: Array) -> Array:
        network = PiModel(self._model, unrolled=True, kernel=self._attention)
        return denoise(network, weights.params, inputs, noise, self._steps, weights.modulations)

    def __call__(
        self, inputs: ModelInput, noise: Float[np.ndarray, "batch action_horizon action_dim"]
    ) -> tuple[Array, str]:
        """Start computing (batch, action_horizon, action_dim), a promise until it is read; and whose weights it is."""
        program = self._program(inputs)
        weights, checkpoint = self._serving
        return program(weights, inputs, noise), checkpoint
