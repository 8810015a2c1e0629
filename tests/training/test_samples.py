"""What the model trains on: the very transforms that serve the policy, and which numbers count."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.data.loading.loader import Batch
from training.pi05.transforms.normalization import NormStats, normalize
from training.pi05.transforms.observation import ObservationTransform
from training.pi05.transforms.tokenizer import Tokenizer
from training.samples import SampleTransform


@pytest.fixture(scope="module")
def stats():
    rng = np.random.default_rng(0)
    low = {"state": rng.uniform(-2, -1, 8), "actions": rng.uniform(-2, -1, 7)}
    return {key: NormStats(np.zeros(len(q01)), np.ones(len(q01)), q01, -q01) for key, q01 in low.items()}


@pytest.fixture(scope="module")
def observe(libero_spec, tiny_pi05, tiny_tokenizer, stats):
    return ObservationTransform(libero_spec, tiny_pi05.config, stats, Tokenizer.load(tiny_tokenizer))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    is_pad = np.zeros((2, 20), bool)
    is_pad[1, 12:] = True
    return Batch(
        images={key: rng.integers(0, 256, (2, 224, 224, 3), np.uint8) for key in ("image", "wrist_image")},
        state=rng.uniform(-1, 1, (2, 8)).astype(np.float32),
        actions=rng.uniform(-1, 1, (2, 20, 7)).astype(np.float32),
        actions_is_pad=is_pad,
        prompts=("open the drawer", "pick up the red cube"),
        rows=np.array([3, 9]),
    )


def transform(observe, *, steps=False, dimensions=False):
    wire_keys = {"image": "observation/image", "wrist_image": "observation/wrist_image"}
    return SampleTransform(observe, wire_keys, 64, steps, dimensions)


def test_training_sees_an_observation_as_serving_does(observe, batch):
    samples = transform(observe)(batch)
    for index in range(2):
        row = observe(
            {
                "observation/image": batch.images["image"][index],
                "observation/wrist_image": batch.images["wrist_image"][index],
                "observation/state": batch.state[index],
                "prompt": batch.prompts[index],
            }
        )
        np.testing.assert_array_equal(samples.inputs.state[index], row.state)
        assert samples.inputs.tokens[index, : len(row.tokens)].tolist() == list(row.tokens)
        for slot, image in row.images.items():
            np.testing.assert_array_equal(samples.inputs.images[slot][index], image)


def test_actions_are_normalised_and_padded_with_zeros(observe, stats, batch):
    actions = transform(observe)(batch).actions
    np.testing.assert_allclose(actions[..., :7], normalize(batch.actions, stats["actions"], "quantile"), rtol=1e-5)
    assert actions.shape == (2, 20, 32)
    assert actions.dtype == np.float32
    assert not np.any(actions[..., 7:])


def test_relative_dimensions_are_trained_relative_to_the_state_at_the_chunks_start(observe, stats, batch):
    mask = (True, False, True)
    action = dataclasses.replace(observe.spec.action, delta_mask=mask)
    relative = dataclasses.replace(observe, spec=dataclasses.replace(observe.spec, action=action))
    deltas = batch.actions.copy()
    for dimension in (0, 2):
        deltas[..., dimension] -= batch.state[:, None, dimension]
    trained = transform(relative)(batch).actions[..., :7]
    np.testing.assert_allclose(trained, normalize(deltas, stats["actions"], "quantile"), atol=1e-5)


def test_what_training_does_to_actions_serving_undoes(observe, batch):
    action = dataclasses.replace(observe.spec.action, delta_mask=(True,) * 6)
    relative = dataclasses.replace(observe, spec=dataclasses.replace(observe.spec, action=action))
    back = relative.actions.inverse(transform(relative)(batch).actions, batch.state)
    np.testing.assert_allclose(back, batch.actions, atol=1e-6)


def test_every_number_counts_as_in_openpi(observe, batch):
    assert np.all(transform(observe)(batch).weights == 1.0)


def test_masking_the_steps_leaves_out_those_past_an_episodes_end_and_no_dimension(observe, batch):
    weights = transform(observe, steps=True)(batch).weights
    assert np.all(weights[0] == 1.0)
    assert np.all(weights[1, :12] == 1.0)
    assert not np.any(weights[1, 12:])


def test_masking_the_dimensions_leaves_out_the_padding_and_no_step(observe, batch):
    weights = transform(observe, dimensions=True)(batch).weights
    assert weights.shape == (2, 20, 32)
    assert np.all(weights[..., :7] == 1.0)
    assert not np.any(weights[..., 7:])
