"""One training step, compiled for one device, with a batch that nobody recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from gpu_inference import gibibytes
from openpi_shaped import Variant, random_inputs

from training.experiment import Experiment
from training.initial_params import InitialParams
from training.parallel.mesh import make_mesh
from training.parallel.parallel_step import first_state
from training.pi05.model.config import ModelConfig
from training.samples import Samples
from training.train_step import make_train_step

__all__ = ["CompiledStep", "compiled_step", "with_lora"]

CAMERAS = 2


@dataclass(frozen=True)
class CompiledStep:
    """A step that can be run over and over."""

    run: Callable[..., object]
    """One update; returns when it is done. Samples may be given; else they are the same ones every time."""
    memory: float
    """GiB of its arguments (state and batch), temporaries and outputs; a donated state counts once."""


def with_lora(model: ModelConfig) -> ModelConfig:
    """The model with factors of openpi's ranks beside both transformers."""
    language, expert = (
        dataclasses.replace(model.language, lora_rank=16),
        dataclasses.replace(model.expert, lora_rank=32),
    )
    return dataclasses.replace(model, language=language, expert=expert)


def random_samples(experiment: Experiment, prompt: int) -> Samples:
    """A batch with two cameras, prompts padded to `prompt` tokens and no padded action."""
    model, batch = experiment.model, experiment.batch_size
    inputs = random_inputs(model, Variant("", CAMERAS, short_prompt=True), batch, prompt - 8, prompt)
    shape = (batch, model.action_horizon, model.action_dim)
    actions = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return Samples(inputs, actions, np.ones(shape, np.float32))


def compiled_step(experiment: Experiment, prompt: int) -> CompiledStep:
    """Compile the step that `train` runs, on the first device, from fresh weights; runs it once."""
    mesh = make_mesh(experiment, jax.devices()[:1])
    key = jax.random.key(experiment.seed)
    state = first_state(experiment, InitialParams.plan(experiment), key, mesh)
    drawn = jax.device_put(random_samples(experiment, prompt), jax.devices()[0])
    compiled = make_train_step(experiment).lower(state, key, drawn).compile()

    def run(samples: Samples = drawn) -> None:
        nonlocal state
        state, metrics = compiled(state, key, samples)
        jax.block_until_ready((state, metrics))
        assert np.isfinite(metrics["loss"])

    run()
    return CompiledStep(run, gibibytes(compiled))
