"""What an observation must be, and what it becomes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy_protocol.errors import InvalidObservation
from training.pi05.transforms.images import parse_image
from training.pi05.transforms.normalization import NormStats, normalize
from training.pi05.transforms.observation import ObservationTransform, collate, trained_prompt_lengths
from training.pi05.transforms.tokenizer import Tokenizer

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
STATE = np.linspace(-0.5, 0.5, 8)


def norm_stats(width):
    return NormStats(np.zeros(width), np.ones(width), -np.ones(width), np.ones(width))


@pytest.fixture(scope="module")
def transform(libero_spec, tiny_pi05, tiny_tokenizer):
    stats = {"state": norm_stats(8), "actions": norm_stats(7)}
    return ObservationTransform(libero_spec, tiny_pi05.config, stats, Tokenizer.load(tiny_tokenizer))


def observation(**changes):
    whole = {
        "observation/image": IMAGE,
        "observation/wrist_image": IMAGE[:, ::-1],
        "observation/state": STATE,
        "prompt": "open the drawer",
    }
    keys = {key.rsplit("/", 1)[-1]: key for key in whole}
    changed = {**whole, **{keys[name]: value for name, value in changes.items()}}
    return {key: value for key, value in changed.items() if value is not None}


def message_of(transform, **changes):
    with pytest.raises(InvalidObservation) as error:
        transform(observation(**changes))
    return error.value.field, error.value.message


def test_cameras_go_to_their_slots_at_the_models_size(transform):
    row = transform(observation())
    assert list(row.images) == ["base_0_rgb", "left_wrist_0_rgb"]
    assert row.image_masks == {"base_0_rgb": True, "left_wrist_0_rgb": True}
    assert all(image.shape == (224, 224, 3) for image in row.images.values())
    np.testing.assert_array_equal(row.images["base_0_rgb"][:, ::-1], row.images["left_wrist_0_rgb"])


def test_the_state_is_tokenised_before_it_is_padded(transform, tiny_tokenizer):
    row = transform(observation())
    normalized = normalize(STATE, norm_stats(8), "quantile")
    assert row.tokens == Tokenizer.load(tiny_tokenizer).encode("open the drawer", normalized, 64)
    np.testing.assert_allclose(row.state[:8], normalized, rtol=1e-6)
    assert row.state.shape == (32,)
    assert not np.any(row.state[8:])
    np.testing.assert_array_equal(row.start_state, STATE)


def test_an_absent_optional_camera_is_black_and_masked(transform):
    base, wrist = transform.spec.observation.cameras
    cameras = (base, dataclasses.replace(wrist, required=False))
    observed = dataclasses.replace(transform.spec.observation, cameras=cameras)
    optional = dataclasses.replace(transform, spec=dataclasses.replace(transform.spec, observation=observed))
    row = optional(observation(wrist_image=None))
    assert row.image_masks == {"base_0_rgb": True, "left_wrist_0_rgb": False}
    assert not np.any(row.images["left_wrist_0_rgb"])


def test_a_batch_pads_prompts_with_masked_zeros(transform):
    rows = [transform(observation()), transform(observation(prompt="pick up the red cube"))]
    batch = collate(rows, 60)
    assert batch.tokens.shape == (2, 60)
    for index, row in enumerate(rows):
        assert batch.tokens[index, : len(row.tokens)].tolist() == row.tokens
        assert not np.any(batch.tokens[index, len(row.tokens) :])
        assert batch.token_mask[index].sum() == len(row.tokens)
    assert len(rows[0].tokens) != len(rows[1].tokens)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("image", "an image (height, width, 3) uint8"),
        ("wrist_image", "an image (height, width, 3) uint8"),
        ("state", "a float vector of 8 numbers"),
        ("prompt", "the instruction as a string"),
    ],
)
def test_a_missing_key_is_named_with_what_there_is(transform, name, expected):
    field, message = message_of(transform, **{name: None})
    held = ", ".join(sorted(observation(**{name: None})))
    assert field == (name if name == "prompt" else f"observation/{name}")
    assert message == f"The observation lacks {field!r}: {expected}. It holds: {held}."


def test_an_empty_observation_holds_nothing(transform):
    with pytest.raises(InvalidObservation, match="It holds: nothing.$"):
        transform({})


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (IMAGE[..., 0], "observation/image must be an image (height, width, 3), not shape (96, 128)."),
        (IMAGE[None], "observation/image must be an image (height, width, 3), not shape (1, 96, 128, 3)."),
        (IMAGE[..., :2], "observation/image must be an image (height, width, 3), not shape (96, 128, 2)."),
        (IMAGE[:0], "observation/image must be an image (height, width, 3), not shape (0, 128, 3)."),
        (IMAGE.astype(np.int64), "observation/image must be uint8 (or float from 0 to 1), not int64."),
        (
            IMAGE.astype(np.float32),
            "observation/image is a float image with values from 0 to 255; floats must lie in 0..1. Send uint8.",
        ),
        (
            np.full((4, 4, 3), np.nan),
            "observation/image is a float image with values from nan to nan; floats must lie in 0..1. Send uint8.",
        ),
        (
            np.full((4, 4, 3), np.inf),
            "observation/image is a float image with values from inf to inf; floats must lie in 0..1. Send uint8.",
        ),
        (
            np.full((4, 4, 3), -0.5),
            "observation/image is a float image with values from -0.5 to -0.5; floats must lie in 0..1. Send uint8.",
        ),
    ],
    ids=["rank 2", "rank 4", "two channels", "empty", "int64", "float to 255", "NaN", "infinity", "negative"],
)
def test_an_image_of_another_rank_dtype_or_range_is_refused(transform, image, expected):
    assert message_of(transform, image=image) == ("observation/image", expected)


def test_ragged_lists_are_no_array(transform):
    for name in ("image", "state"):
        field, message = message_of(transform, **{name: [[1, 2], [3]]})
        assert field == f"observation/{name}"
        assert message.startswith(f"observation/{name} is no array: ")


def test_channels_first_and_floats_from_0_to_1_are_taken():
    np.testing.assert_array_equal(parse_image(np.moveaxis(IMAGE, -1, 0), "image"), IMAGE)
    as_floats = parse_image(IMAGE.astype(np.float32) / 255, "image").astype(int)
    assert np.abs(as_floats - IMAGE).max() <= 1  # openpi's conversion cuts off, it does not round


@pytest.mark.parametrize("state", [STATE[:7], np.zeros((1, 8)), np.array(["a"] * 8), np.float64(3)])
def test_a_state_of_another_shape_or_kind_is_refused_with_its_parts(transform, state):
    expected = (
        "observation/state must be 8 numbers (end-effector position, end-effector axis-angle, fingers), "
        f"not shape {np.shape(state)} of {np.asarray(state).dtype}."
    )
    assert message_of(transform, state=state) == ("observation/state", expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_state_without_a_value_is_refused(transform, bad):
    state = STATE.copy()
    state[3] = bad
    field, message = message_of(transform, state=state)
    assert field == "observation/state"
    assert message == "observation/state holds NaN, infinity or a number beyond 1e30."


def test_whole_numbers_are_a_state(transform):
    np.testing.assert_allclose(transform(observation(state=np.arange(8))).state[:8], np.arange(8), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prompt", [3, ["open"], np.array(["open", "close"])])
def test_a_prompt_is_a_string(transform, prompt):
    expected = f"prompt must be a string, not {type(prompt).__name__}."
    assert message_of(transform, prompt=prompt) == ("prompt", expected)


@pytest.mark.parametrize("prompt", [np.array("open the drawer"), b"open the drawer"], ids=["0-d array", "bytes"])
def test_what_the_wire_makes_of_a_string_is_a_prompt(transform, prompt):
    assert transform(observation(prompt=prompt)).tokens == transform(observation()).tokens


def lengths_of(spec, tokenizer, longest, *trained, **prompt):
    changed = dataclasses.replace(spec.observation.prompt, trained=trained, **prompt)
    observed = dataclasses.replace(spec.observation, prompt=changed)
    return trained_prompt_lengths(dataclasses.replace(spec, observation=observed), tokenizer, longest)


def test_trained_prompts_are_padded_to_a_few_lengths_that_hold_any_state(transform, tiny_tokenizer):
    tokenizer, task = Tokenizer.load(tiny_tokenizer), "open the drawer and the other drawer"
    assert lengths_of(transform.spec, tokenizer, 200, "open") == (48,)
    assert lengths_of(transform.spec, tokenizer, 200, "open", task) == (48, 64)
    states = np.random.default_rng(0).uniform(-1.5, 1.5, (300, 8))
    tokens = [len(tokenizer.encode(task, state, 200)) for state in states]
    assert 48 < max(tokens) <= 64


def test_trained_prompts_without_a_state_are_as_long_as_their_text(transform, tiny_tokenizer):
    tokenizer = Tokenizer.load(tiny_tokenizer)
    assert lengths_of(transform.spec, tokenizer, 200, "open", includes_state=False) == (16,)


def test_a_trained_prompt_is_padded_to_no_more_than_the_model_takes(transform, tiny_tokenizer):
    tokenizer = Tokenizer.load(tiny_tokenizer)
    longest = max(len(tokenizer.encode("open", np.full(8, value), 200)) for value in (-2.0, 0.0))
    assert longest % 16 != 0
    assert lengths_of(transform.spec, tokenizer, longest, "open") == (longest,)


@pytest.mark.parametrize(
    ("longest", "expected"), [(200, (32, 64, 128, 200)), (64, (32, 64)), (48, (32, 48)), (7, (7,))]
)
def test_a_spec_without_trained_prompts_gets_a_few_lengths(transform, tiny_tokenizer, longest, expected):
    assert lengths_of(transform.spec, Tokenizer.load(tiny_tokenizer), longest) == expected
