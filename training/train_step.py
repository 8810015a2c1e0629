"""One update: augmentation, loss, gradient, clip, AdamW, average."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from training.augment import augment
from training.experiment import Experiment
from training.pi05.model.flow import flow_loss
from training.pi05.model.params import flatten
from training.pi05.model.pi import ModelInput, PiModel
from training.samples import Samples
from training.train_state import TrainState, learning_rate, optimizer

__all__ = ["make_loss", "make_train_step"]

_NOT_KERNELS = {"bias", "scale", "pos_embedding", "input_embedding"}

Metrics: TypeAlias = Mapping[str, Float[Array, ""]]
Loss: TypeAlias = Callable[[PyTree[Array], PRNGKeyArray, Samples], Float[Array, ""]]
TrainStep: TypeAlias = Callable[[TrainState, PRNGKeyArray, Samples], tuple[TrainState, Metrics]]


def make_loss(experiment: Experiment) -> Loss:
    """The loss of an experiment's batch: parameters, a step's key and samples to one number.

    The key gives augmentation, noise and times, as openpi splits it.
    """
    model = PiModel(experiment.model)

    def loss(params: PyTree[Array], step_key: PRNGKeyArray, samples: Samples) -> Float[Array, ""]:
        inputs = _augmented(samples.inputs, step_key) if experiment.augment else samples.inputs
        squared = flow_loss(model, params, step_key, inputs, samples.actions)
        return jnp.sum(squared * samples.weights) / jnp.sum(samples.weights)

    return loss


def make_train_step(experiment: Experiment) -> TrainStep:
    """The jitted update of an experiment. The state is donated; the key is the run's, the step is folded in here."""
    loss_and_gradients = jax.value_and_grad(make_loss(experiment))
    transform = optimizer(experiment.optimizer, experiment.decay_steps)
    schedule = learning_rate(experiment.optimizer, experiment.decay_steps)
    decay = experiment.optimizer.ema_decay

    def step(state: TrainState, key: PRNGKeyArray, samples: Samples) -> tuple[TrainState, Metrics]:
        loss, gradients = loss_and_gradients(state.params, jax.random.fold_in(key, state.step), samples)
        updates, opt_state = transform.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = state.ema_params
        if decay is not None:
            averaged = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, averaged, params)
        metrics = {
            "loss": loss,
            "grad_norm": optax.global_norm(gradients),
            "param_norm": _kernel_norm(params),
            "learning_rate": schedule(state.step),
        }
        return TrainState(state.step + 1, params, opt_state, averaged), metrics

    return jax.jit(step, donate_argnums=0)


def _kernel_norm(params: PyTree[Array]) -> Float[Array, ""]:
    """openpi's `param_norm`: of the kernels alone, without biases, norms' scales and embeddings."""
    leaves = flatten(params).items()
    return optax.global_norm([leaf for path, leaf in leaves if path.rsplit("/", 1)[-1] not in _NOT_KERNELS])


def _augmented(inputs: ModelInput, step_key: PRNGKeyArray) -> ModelInput:
    """The images changed by the first of the three keys that `flow_loss` splits from a step's; it leaves that one."""
    images_key, _, _ = jax.random.split(step_key, 3)
    return inputs.replace(images=augment(images_key, inputs.images))
