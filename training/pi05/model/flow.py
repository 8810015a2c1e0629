"""Flow matching (Lipman et al. 2023) over action chunks.

t = 1 is noise and t = 0 the actions (the opposite of the Pi0 paper, as in openpi's code):
x_t = t·noise + (1-t)·actions, and the model learns the velocity noise - actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from training.pi05.model.modulation import Modulations
from training.pi05.model.pi import ModelInput, PiModel

__all__ = [
    "denoise",
    "denoising_times",
    "flow_loss",
    "flow_loss_at",
    "flow_loss_of_draws",
    "sample_noise_and_time",
    "sample_time",
]

Params = PyTree[Array]


def sample_time(key: PRNGKeyArray, batch: int) -> Float[Array, "batch"]:
    """Times for training, Beta(1.5, 1) · 0.999 + 0.001: more weight on noisy chunks, never t = 0."""
    return jax.random.beta(key, 1.5, 1, (batch,)) * 0.999 + 0.001


def flow_loss(
    model: PiModel,
    params: Params,
    key: PRNGKeyArray,
    inputs: ModelInput,
    actions: Float[Array, "batch action_horizon action_dim"],
) -> Float[Array, "batch action_horizon action_dim"]:
    """Squared velocity error at random noise and times.

    The key is split as openpi splits it (augmentation, noise, time), so the same key gives the same loss.
    """
    return flow_loss_at(model, params, inputs, actions, *sample_noise_and_time(key, actions.shape))


def sample_noise_and_time(
    key: PRNGKeyArray, shape: tuple[int, int, int]
) -> tuple[Float[Array, "batch action_horizon action_dim"], Float[Array, "batch"]]:
    """Noise and times of a batch of actions, from the second and third of the keys that openpi splits a step's into."""
    _, noise_key, time_key = jax.random.split(key, 3)
    return jax.random.normal(noise_key, shape), sample_time(time_key, shape[0])


def flow_loss_at(
    model: PiModel,
    params: Params,
    inputs: ModelInput,
    actions: Float[Array, "batch action_horizon action_dim"],
    noise: Float[Array, "batch action_horizon action_dim"],
    t: Float[Array, "batch"],
) -> Float[Array, "batch action_horizon action_dim"]:
    """Squared velocity error at given noise and times, one number for each step and dimension.

    openpi's loss is the mean over all dimensions, padding included.
    """
    at = t[:, None, None]
    noisy_actions = at * noise + (1 - at) * actions
    velocity = model.apply({"params": params}, inputs, noisy_actions, t)
    return jnp.square(velocity - (noise - actions))


def flow_loss_of_draws(
    model: PiModel,
    params: Params,
    inputs: ModelInput,
    actions: Float[Array, "batch action_horizon action_dim"],
    noise: Float[Array, "batch draws action_horizon action_dim"],
    t: Float[Array, "batch draws"],
) -> Float[Array, "batch action_horizon action_dim"]:
    """The mean of `flow_loss_at` over several draws of noise and time for each sample.

    The prefix sees neither noise nor time, so it is computed once, and its gradient is the draws' together.
    """
    prefix = model.apply({"params": params}, inputs, method=model.prefill)

    def of_one(noise: Array, t: Array) -> Array:
        at = t[:, None, None]
        noisy_actions = at * noise + (1 - at) * actions
        velocity = model.apply({"params": params}, prefix, inputs.state, noisy_actions, t, method=model.velocity)
        return jnp.square(velocity - (noise - actions))

    return jnp.mean(jax.vmap(of_one, in_axes=1)(noise, t), axis=0)


def denoising_times(steps: int) -> Float[np.ndarray, "steps"]:
    """The times of the Euler steps, 1 to 1/steps, added up in float32 as openpi's loop does."""
    steps_before = np.full(steps - 1, -1.0 / steps, np.float32)
    return np.cumsum(np.concatenate([np.ones(1, np.float32), steps_before]), dtype=np.float32)


def denoise(
    model: PiModel,
    params: Params,
    inputs: ModelInput,
    noise: Float[Array, "batch action_horizon action_dim"],
    steps: int,
    modulations: Modulations | None = None,
) -> Float[Array, "batch action_horizon action_dim"]:
    """Integrate from noise to actions with `steps` Euler steps; the prefix is computed once.

    Args:
        modulations: of adaRMS at `denoising_times(steps)` (Pi0.5), if they are computed already.
    """
    variables: Any = {"params": params}
    prefix = model.apply(variables, inputs, method=model.prefill)

    def euler(x: Array, at: tuple[Array, Modulations | None]) -> tuple[Array, None]:
        t = jnp.broadcast_to(at[0], x.shape[:1])
        v = model.apply(variables, prefix, inputs.state, x, t, at[1], method=model.velocity)
        dt = jnp.asarray(-1.0 / steps, v.dtype)  # in bfloat16 it is -0.10009766, and so it is in openpi
        return x + dt.astype(jnp.float32) * v.astype(jnp.float32), None

    actions, _ = jax.lax.scan(euler, noise, (denoising_times(steps), modulations))
    return actions
