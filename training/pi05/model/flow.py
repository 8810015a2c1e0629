"""Flow matching (Lipman et al. 2023) over action chunks.

t = 1 is noise and t = 0 the actions (the opposite of the Pi0 paper, as in openpi's code):
x_t = t·noise + (1-t)·actions, and the model learns the velocity noise - actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from training.pi05.model.pi import ModelInput, PiModel

__all__ = ["denoise", "flow_loss", "flow_loss_at", "sample_time"]

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
    _, noise_key, time_key = jax.random.split(key, 3)
    noise = jax.random.normal(noise_key, actions.shape)
    return flow_loss_at(model, params, inputs, actions, noise, sample_time(time_key, actions.shape[0]))


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


def denoise(
    model: PiModel,
    params: Params,
    inputs: ModelInput,
    noise: Float[Array, "batch action_horizon action_dim"],
    steps: int,
) -> Float[Array, "batch action_horizon action_dim"]:
    """Integrate from noise to actions with `steps` Euler steps; the prefix is computed once."""
    variables: Any = {"params": params}
    prefix = model.apply(variables, inputs, method=model.prefill)
    dt = -1.0 / steps

    def euler(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        x, t = carry
        v = model.apply(variables, prefix, inputs.state, x, jnp.broadcast_to(t, x.shape[:1]), method=model.velocity)
        return (x + dt * v, t + dt), None

    (actions, _), _ = jax.lax.scan(euler, (noise, jnp.float32(1.0)), None, length=steps)
    return actions
