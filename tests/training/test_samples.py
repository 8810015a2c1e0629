"""What the model trains on: the very transforms that serve the policy, and which numbers count."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.loader import Batch
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


def transform(observe, stats, mask_padding):
    wire_keys = {"image": "observation/image", "wrist_image": "observation/wrist_image"}
    return SampleTransform(observe, stats, wire_keys, 64, mask_padding)


def test_training_sees_an_observation_as_serving_does(observe, stats, batch):
    samples = transform(observe, stats, False)(batch)
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
    actions = transform(observe, stats, False)(batch).actions
    np.testing.assert_allclose(actions[..., :7], normalize(batch.actions, stats["actions"], "quantile"), rtol=1e-5)
    assert actions.shape == (2, 20, 32)
    assert not np.any(actions[..., 7:])


def test_every_number_counts_as_in_openpi(observe, stats, batch):
    assert np.all(transform(observe, stats, False)(batch).weights == 1.0)


def test_masking_leaves_out_the_steps_past_an_episodes_end_and_no_dimension(observe, stats, batch):
    """The sampler integrates the padded dimensions too: untrained, they would lead the real ones astray."""
    weights = transform(observe, stats, True)(batch).weights
    assert np.all(weights[0] == 1.0)
    assert np.all(weights[1, :12] == 1.0)
    assert not np.any(weights[1, 12:])
