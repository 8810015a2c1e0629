"""One update: loss, gradient, clip, AdamW, average."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from training.experiment import Experiment
from training.pi05.model.flow import flow_loss
from training.pi05.model.pi import PiModel
from training.samples import Samples
from training.train_state import TrainState, learning_rate, optimizer

__all__ = ["make_train_step"]

Metrics: TypeAlias = Mapping[str, Float[Array, ""]]
TrainStep: TypeAlias = Callable[[TrainState, PRNGKeyArray, Samples], tuple[TrainState, Metrics]]


def make_train_step(experiment: Experiment) -> TrainStep:
    """The jitted update of an experiment. The state is donated; the key is the run's, the step is folded in here."""
    model = PiModel(experiment.model)
    transform = optimizer(experiment.optimizer, experiment.decay_steps)
    schedule = learning_rate(experiment.optimizer, experiment.decay_steps)
    decay = experiment.optimizer.ema_decay

    def loss_of(params: PyTree[Array], key: PRNGKeyArray, samples: Samples) -> Float[Array, ""]:
        squared = flow_loss(model, params, key, samples.inputs, samples.actions)
        return jnp.sum(squared * samples.weights) / jnp.sum(samples.weights)

    def step(state: TrainState, key: PRNGKeyArray, samples: Samples) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(key, state.step)
        loss, gradients = jax.value_and_grad(loss_of)(state.params, step_key, samples)
        updates, opt_state = transform.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = state.ema_params
        if decay is not None:
            averaged = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, averaged, params)
        metrics = {
            "loss": loss,
            "grad_norm": optax.global_norm(gradients),
            "param_norm": optax.global_norm(params),
            "learning_rate": schedule(state.step),
        }
        return TrainState(state.step + 1, params, opt_state, averaged), metrics

    return jax.jit(step, donate_argnums=0)
