"""One update: augmentation, loss, gradient, clip, AdamW, average."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from training.augment import augment
from training.experiment import Experiment
from training.freezing import Freezing
from training.image_shift import shift_images
from training.pi05.model.flow import flow_loss_at, flow_loss_of_draws, sample_noise_and_time
from training.pi05.model.params import flatten, unflatten
from training.pi05.model.pi import ModelInput, PiModel
from training.pi05.model.serving import unroll
from training.samples import Samples
from training.train_state import TrainState, learning_rate, optimizer

__all__ = [
    "Metrics",
    "TrainStep",
    "draw_noise_and_times",
    "make_gradients",
    "make_loss",
    "make_train_step",
    "make_update",
]

_NOT_KERNELS = {"bias", "scale", "pos_embedding", "input_embedding"}

Metrics: TypeAlias = Mapping[str, Float[Array, ""]]
Loss: TypeAlias = Callable[[PyTree[Array], PRNGKeyArray, Samples], Float[Array, ""]]
Gradients: TypeAlias = Callable[[PyTree[Array], PRNGKeyArray, Samples], tuple[Float[Array, ""], PyTree[Array]]]
TrainStep: TypeAlias = Callable[[TrainState, PRNGKeyArray, Samples], tuple[TrainState, Metrics]]


class _Drawn(flax.struct.PyTreeNode):
    """Samples with all that is random of a step."""

    samples: Samples
    noise: Float[Array, "batch draws action_horizon action_dim"]
    t: Float[Array, "batch draws"]


def make_loss(experiment: Experiment) -> Loss:
    """The loss of an experiment's batch: parameters, a step's key and samples to one number.

    The key gives augmentation, noise and times, as openpi splits it.
    """
    error = _weighted_error(experiment)

    def loss(params: PyTree[Array], step_key: PRNGKeyArray, samples: Samples) -> Float[Array, ""]:
        return error(params, _draw(experiment, step_key, samples)) / jnp.sum(samples.weights)

    return loss


def make_update(experiment: Experiment) -> TrainStep:
    """The update of an experiment, for `jax.jit`. The key is the run's, the step is folded in here."""
    freezing = Freezing.of(experiment)
    loss_and_gradients = make_gradients(experiment)
    transform = optimizer(experiment.optimizer, experiment.decay_steps)
    schedule = learning_rate(experiment.optimizer, experiment.decay_steps)
    decay = experiment.optimizer.ema_decay

    def step(state: TrainState, key: PRNGKeyArray, samples: Samples) -> tuple[TrainState, Metrics]:
        loss, gradients = loss_and_gradients(state.params, jax.random.fold_in(key, state.step), samples)
        trainable = freezing.trainable(state.params)
        updates, opt_state = transform.update(gradients, state.opt_state, trainable)
        trainable = optax.apply_updates(trainable, updates)
        averaged = state.ema_params
        if decay is not None:
            averaged = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, averaged, trainable)
        params = freezing.join(trainable, state.params)
        metrics = {
            "loss": loss,
            "grad_norm": optax.global_norm(gradients),
            "param_norm": _kernel_norm(params),
            "learning_rate": schedule(state.step),
        }
        return TrainState(state.step + 1, params, opt_state, averaged), metrics

    return step


def make_train_step(experiment: Experiment) -> TrainStep:
    """The jitted update of an experiment where its state and samples are; the state is donated."""
    return jax.jit(make_update(experiment), donate_argnums=0)


def make_gradients(experiment: Experiment) -> Gradients:
    """The loss of `make_loss` and its gradient for the leaves that train, however many parts they are computed in."""
    error, freezing, parts = _weighted_error(experiment), Freezing.of(experiment), experiment.accumulate_steps

    def compute(params: PyTree[Array], step_key: PRNGKeyArray, samples: Samples) -> tuple[Array, PyTree[Array]]:
        drawn, total = _draw(experiment, step_key, samples), jnp.sum(samples.weights)

        def share(trainable: PyTree[Array], part: _Drawn) -> Float[Array, ""]:
            return error(freezing.join(trainable, params), part) / total

        trainable = freezing.trainable(params)
        if parts == 1:
            return jax.value_and_grad(share)(trainable, drawn)

        def add(sums: Any, part: _Drawn) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, jax.value_and_grad(share)(trainable, part)), None

        zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, trainable))
        return jax.lax.scan(add, zeros, jax.tree.map(lambda leaf: _parted(leaf, parts), drawn))[0]

    return compute


def draw_noise_and_times(
    step_key: PRNGKeyArray, shape: tuple[int, int, int], draws: int
) -> tuple[Float[Array, "batch draws action_horizon action_dim"], Float[Array, "batch draws"]]:
    """Noise and times of a batch of actions of that shape; the first of the draws is openpi's."""
    more = [jax.random.fold_in(step_key, draw) for draw in range(1, draws)]
    drawn = [sample_noise_and_time(key, shape) for key in (step_key, *more)]
    noise, t = (jnp.stack(parts, axis=1) for parts in zip(*drawn, strict=True))
    return noise, t


def _parted(leaf: Array, parts: int) -> Array:
    """(batch, …) as (parts, batch / parts, …). Every part takes rows from all over the batch: cut over devices, each
    device has its share of each part already."""
    return leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)


def _weighted_error(experiment: Experiment) -> Callable[[PyTree[Array], _Drawn], Float[Array, ""]]:
    model = PiModel(experiment.model, unrolled=experiment.unroll_layers)

    def error(params: PyTree[Array], drawn: _Drawn) -> Float[Array, ""]:
        samples, noise, t = drawn.samples, drawn.noise, drawn.t
        if experiment.unroll_layers:
            params = unflatten(unroll(flatten(params)))
        if experiment.draws_per_sample == 1:  # prefix and suffix in one pass, as openpi has it
            squared = flow_loss_at(model, params, samples.inputs, samples.actions, noise[:, 0], t[:, 0])
        else:
            squared = flow_loss_of_draws(model, params, samples.inputs, samples.actions, noise, t)
        return jnp.sum(squared * samples.weights)

    return error


def _draw(experiment: Experiment, step_key: PRNGKeyArray, samples: Samples) -> _Drawn:
    samples = samples.replace(inputs=_augmented(experiment, samples.inputs, step_key))
    return _Drawn(samples, *draw_noise_and_times(step_key, samples.actions.shape, experiment.draws_per_sample))


def _kernel_norm(params: PyTree[Array]) -> Float[Array, ""]:
    """openpi's `param_norm`: of the kernels alone, without biases, norms' scales and embeddings."""
    leaves = flatten(params).items()
    kernels = [leaf for path, leaf in leaves if path.rsplit("/", 1)[-1] not in _NOT_KERNELS]
    return optax.global_norm([kernel.astype(jnp.float32) for kernel in kernels])


def _augmented(experiment: Experiment, inputs: ModelInput, step_key: PRNGKeyArray) -> ModelInput:
    """The images changed by the first of the three keys that `sample_noise_and_time` splits from a step's; it leaves
    that one."""
    images_key, _, _ = jax.random.split(step_key, 3)
    images = inputs.images
    if experiment.shift_pixels:  # of a key of its own: openpi's augmentation stays what it is
        images = shift_images(jax.random.fold_in(images_key, 0), images, experiment.shift_pixels)
    return inputs.replace(images=augment(images_key, images) if experiment.augment else images)
