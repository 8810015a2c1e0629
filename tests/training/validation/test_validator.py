"""The same weights get the same numbers, and a policy that does nothing gets those of its noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.data import open_data
from training.experiment import Experiment
from training.parallel.mesh import make_mesh
from training.pi05.model.params import flatten, unflatten
from training.pi05.transforms.observation import ObservationTransform
from training.pi05.transforms.tokenizer import Tokenizer
from training.policy_spec import build_spec
from training.samples import SampleTransform
from training.validation import Validator

HORIZON = 3


@pytest.fixture(scope="module")
def experiment(tiny_pi05, lerobot_dataset):
    return Experiment(
        "tiny", tiny_pi05.config, str(lerobot_dataset), execution_horizon=HORIZON, denoising_steps=1, batch_size=4
    )


@pytest.fixture(scope="module")
def data(lerobot_dataset):
    return open_data([str(lerobot_dataset)], seed=0, held_out=0.3)


@pytest.fixture(scope="module")
def loader(data, experiment, tmp_path_factory):
    side, horizon = experiment.model.vision.image_size, experiment.model.action_horizon
    cache = tmp_path_factory.mktemp("cache")
    return data.loaders(cache, height=side, width=side, action_horizon=horizon, batch_size=4).validation


@pytest.fixture(scope="module")
def transform(data, experiment, tiny_tokenizer):
    stats = data.norm_stats()
    spec = build_spec(experiment, data.mixture, stats, "", "run")
    observation = ObservationTransform(spec, experiment.model, stats, Tokenizer.load(tiny_tokenizer))
    keys = {"image": "observation/image", "wrist_image": "observation/wrist_image"}
    return SampleTransform(observation, keys, experiment.model.max_token_len, False, False)


@pytest.fixture(scope="module")
def validator(experiment, loader, transform, data):
    return Validator(experiment, loader, transform, data.norm_stats(), make_mesh(experiment), batches=2)


@pytest.fixture(scope="module")
def idle(tiny_pi05):
    """Weights whose velocity is zero everywhere: what they do is the noise that they begin with."""
    flat = flatten(tiny_pi05.params)
    silent = {path: jnp.zeros_like(leaf) if path.startswith("action_out_proj") else leaf for path, leaf in flat.items()}
    return unflatten(silent)


@pytest.fixture(scope="module")
def idled(validator, idle):
    return validator(idle)


def noise(index, shape):
    return np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(0), index), shape))


def test_an_idle_policys_error_is_that_of_its_noise_in_physical_units(idled, loader, data):
    stats = data.norm_stats()["actions"]
    errors = []
    for index in range(2):
        batch = loader.batch(index)
        normalised = noise(index, (4, batch.actions.shape[1], 32))[:, :HORIZON, : stats.dimension]
        acted = (normalised + 1) / 2 * (stats.q99 - stats.q01 + 1e-6) + stats.q01
        errors.append(np.abs(acted - batch.actions[:, :HORIZON])[~batch.actions_is_pad[:, :HORIZON]])
    expected = np.concatenate(errors).mean(axis=0)
    np.testing.assert_allclose(idled.errors.policy, expected, rtol=1e-5)


def test_the_same_weights_get_the_same_numbers_and_others_get_others(validator, idled, tiny_pi05):
    first, again = validator(tiny_pi05.params), validator(tiny_pi05.params)
    assert first.record() == again.record()
    assert idled.loss != first.loss
    for name, values in first.errors.baselines.items():
        np.testing.assert_array_equal(idled.errors.baselines[name], values)


def test_the_mean_action_errs_by_the_mean_absolute_deviation(idled, loader, data):
    mean = data.norm_stats()["actions"].mean
    batches = [loader.batch(index) for index in range(2)]
    errors = [np.abs(b.actions[:, :HORIZON] - mean)[~b.actions_is_pad[:, :HORIZON]] for b in batches]
    expected = np.concatenate(errors).mean(axis=0)
    np.testing.assert_allclose(idled.errors.baselines["mean_action"], expected, rtol=1e-6)
