"""The optimizer: openpi's schedule, and its parameters after three of its steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from training.experiment import OptimizerConfig
from training.pi05.model.flow import flow_loss_at
from training.pi05.model.params import flatten
from training.train_state import learning_rate, optimizer


def test_the_learning_rate_is_openpis_at_every_step(openpi_data):
    with np.load(openpi_data / "helpers.npz") as helpers:
        expected = helpers["sched/cosine_10_2.5e-5_30_2.5e-6"]
    schedule = learning_rate(OptimizerConfig(peak_lr=2.5e-5, end_lr=2.5e-6, warmup_steps=10), 30)
    np.testing.assert_allclose([float(schedule(step)) for step in range(40)], expected, rtol=1e-5)


@pytest.fixture(scope="module")
def trained(tiny_pi05, openpi_data):
    """Three steps at openpi's noise and times: what each reported, the parameters and their average afterwards."""
    with np.load(openpi_data / "tiny_pi05_train_float32.npz") as recorded:
        expected = dict(recorded)
    update = optimizer(OptimizerConfig(peak_lr=1e-3, end_lr=1e-4, warmup_steps=2), 100)

    def loss_of(params, noise, time):
        actions = tiny_pi05.recorded["in/actions"]
        return flow_loss_at(tiny_pi05.model, params, tiny_pi05.inputs, actions, noise, time).mean()

    @jax.jit
    def step(params, averaged, state, noise, time):
        loss, gradients = jax.value_and_grad(loss_of)(params, noise, time)
        updates, state = update.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        averaged = jax.tree.map(lambda old, new: 0.99 * old + 0.01 * new, averaged, params)
        return params, averaged, state, (loss, optax.global_norm(gradients))

    params = averaged = jax.tree.map(jnp.asarray, tiny_pi05.params)
    state, reports = update.init(params), []
    for index in range(3):
        noise, time = jnp.asarray(expected[f"noise{index}"]), jnp.asarray(expected[f"time{index}"])
        params, averaged, state, report = step(params, averaged, state, noise, time)
        reports.append(report)
    after = jax.device_get((reports, flatten(params), flatten(averaged)))
    return expected, *after


def test_three_steps_report_openpis_losses_and_gradient_norms(trained):
    expected, reports, _, _ = trained
    np.testing.assert_allclose(reports, expected["infos"][:, :2], rtol=1e-4)


def test_three_steps_end_at_openpis_parameters(trained, tiny_pi05):
    """Adam divides by the gradient's size, so what is rounding in a gradient of zero is a whole step in a parameter."""
    expected, _, params, _ = trained
    start = flatten(tiny_pi05.params)
    moved = np.concatenate([np.ravel(expected[f"params/{path}"] - start[path]) for path in start])
    error = np.concatenate([np.ravel(params[path] - expected[f"params/{path}"]) for path in start])
    assert np.abs(moved).max() > 1e-3
    assert np.mean(np.abs(error) > 1e-5) < 0.01
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(moved)


def test_the_average_follows_the_parameters_as_openpis(trained, tiny_pi05):
    expected, _, _, averaged = trained
    start = flatten(tiny_pi05.params)
    moved = np.concatenate([np.ravel(expected[f"ema/{path}"]) for path in start])
    error = np.concatenate([np.ravel(averaged[path] - start[path] - expected[f"ema/{path}"]) for path in start])
    assert np.abs(moved).max() > 1e-6
    assert np.linalg.norm(error) < 0.05 * np.linalg.norm(moved)
