"""openpi's robots: what their clients send, and what openpi's own input transforms made of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy_protocol.errors import InvalidObservation
from training.pi05.released import released_policy
from training.pi05.transforms.images import parse_image, resize_with_pad
from training.pi05.transforms.normalization import NormStats
from training.pi05.transforms.observation import ObservationTransform
from training.pi05.transforms.tokenizer import Tokenizer

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 48, 64), np.uint8)


@pytest.fixture(scope="module")
def recorded(openpi_data):
    with np.load(openpi_data / "policy_transforms.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def transform_of(tiny_pi05, tiny_tokenizer):
    """Makes the observation transform of a released policy for the tiny model, with room for its prompts."""
    model = dataclasses.replace(tiny_pi05.config, max_token_len=200)

    def make(name, **prompt):
        spec = released_policy(name).spec
        changed = dataclasses.replace(spec.observation.prompt, **prompt)
        spec = dataclasses.replace(spec, observation=dataclasses.replace(spec.observation, prompt=changed))
        width = spec.action.dimension
        unit = NormStats(np.zeros(width), np.ones(width), -np.ones(width), np.ones(width))
        stats = {"state": dataclasses.replace(unit), "actions": unit}
        if spec.observation.state.dimension != width:
            wide = np.zeros(spec.observation.state.dimension)
            stats["state"] = NormStats(wide, wide + 1, wide - 1, wide + 1)
        return ObservationTransform(spec, model, stats, Tokenizer.load(tiny_tokenizer))

    return make


def part_of(arrays, prefix):
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def nested(raw):
    """A recorded request as it was sent: what stands before a `|` is a map."""
    observation = {}
    for key, value in raw.items():
        first, _, rest = key.partition("|")
        if rest:
            observation.setdefault(first, {})[rest] = value
        else:
            observation[key] = value
    return observation


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("pi05_libero", "libero/pi05"),
        ("pi0_libero", "libero/pi05"),
        ("pi05_libero", "libero/floatchw"),
        ("pi05_droid", "droid/pi05"),
        ("pi0_droid", "droid/pi05"),
        ("pi0_aloha_sim", "aloha/True"),
    ],
)
def test_a_request_becomes_what_openpi_makes_of_it(transform_of, recorded, name, case):
    row = transform_of(name)(nested(part_of(recorded, f"{case}/in|")))
    expected = part_of(recorded, f"{case}/out|")
    np.testing.assert_allclose(row.start_state, expected["state"], atol=1e-12)
    for slot, mask in part_of(expected, "image_mask|").items():
        assert row.image_masks.get(slot, False) == mask
        if mask:
            np.testing.assert_array_equal(row.images[slot], resize_with_pad(expected[f"image|{slot}"], 224, 224))


@pytest.mark.parametrize(("name", "case"), [("pi05_libero", "libero_out"), ("pi05_droid", "droid_out")])
def test_the_width_of_actions_is_openpis(recorded, name, case):
    assert recorded[case].shape[-1] == released_policy(name).spec.action.dimension


def test_a_float_image_with_channels_first_is_converted_as_openpi_does(recorded):
    image = recorded["libero/floatchw/in|observation/image"]
    assert (image.dtype, image.shape) == (np.float32, (3, 16, 16))
    np.testing.assert_array_equal(parse_image(image, "image"), recorded["libero/floatchw/out|image|base_0_rgb"])


def aloha(**changes):
    whole = {"state": np.zeros(14), "images": {"cam_high": IMAGE}, "prompt": "stack"}
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def test_a_key_with_slashes_is_found_flat_and_in_nested_maps(transform_of):
    transform = transform_of("pi0_aloha_sim")
    flat = {"state": np.zeros(14), "images/cam_high": IMAGE, "prompt": "stack"}
    for slot, image in transform(aloha()).images.items():
        np.testing.assert_array_equal(image, transform(flat).images[slot])


def test_alohas_wrist_cameras_may_be_absent_and_its_high_camera_may_not(transform_of):
    transform = transform_of("pi0_aloha_sim")
    assert transform(aloha()).image_masks == {
        "base_0_rgb": True,
        "left_wrist_0_rgb": False,
        "right_wrist_0_rgb": False,
    }
    with pytest.raises(InvalidObservation) as error:
        transform(aloha(images={"cam_low": IMAGE, "cam_left_wrist": IMAGE}))
    assert error.value.field == "images/cam_high"
    assert error.value.message == (
        "The observation lacks 'images/cam_high': an image (height, width, 3) uint8. "
        "It holds: images/cam_left_wrist, images/cam_low, prompt, state."
    )


def test_a_bad_image_in_a_nested_map_is_named_by_its_path(transform_of):
    with pytest.raises(InvalidObservation) as error:
        transform_of("pi0_aloha_sim")(aloha(images={"cam_high": IMAGE[0]}))
    assert error.value.field == "images/cam_high"
    assert error.value.message == "images/cam_high must be an image (height, width, 3), not shape (48, 64)."


def test_a_request_without_a_prompt_gets_the_default_one(transform_of):
    transform = transform_of("pi0_aloha_sim")
    assert transform(aloha(prompt=None)).tokens == transform(aloha(prompt="Transfer cube")).tokens
    assert transform(aloha()).tokens != transform(aloha(prompt=None)).tokens
    with pytest.raises(InvalidObservation, match="lacks 'prompt': the instruction as a string"):
        transform_of("pi0_aloha_sim", default="")(aloha(prompt=None))


JOINTS, GRIPPER = np.zeros(7), np.zeros(1)


def droid(joints=JOINTS, gripper=GRIPPER):
    images = {f"observation/{name}_image{rest}": IMAGE for name, rest in (("exterior", "_1_left"), ("wrist", "_left"))}
    return {
        **images,
        "observation/joint_position": joints,
        "observation/gripper_position": gripper,
        "prompt": "open the drawer",
    }


@pytest.mark.parametrize(
    ("observation", "field", "message"),
    [
        (
            droid(joints=np.zeros(8)),
            "observation/joint_position",
            "observation/joint_position must be 7 numbers (joint position), not shape (8,) of float64.",
        ),
        (
            droid(gripper=np.zeros((1, 1))),
            "observation/gripper_position",
            "observation/gripper_position must be 1 numbers (gripper position), not shape (1, 1) of float64.",
        ),
        (
            droid(joints=np.float32(0)),
            "observation/joint_position",
            "observation/joint_position must be 7 numbers (joint position), not shape () of float32.",
        ),
        (
            droid(gripper=np.array([np.nan])),
            "observation/gripper_position",
            "observation/gripper_position holds NaN, infinity or a number beyond 1e30.",
        ),
    ],
    ids=["too long", "a matrix", "no vector", "NaN"],
)
def test_a_part_of_the_state_that_is_wrong_is_named(transform_of, observation, field, message):
    with pytest.raises(InvalidObservation) as error:
        transform_of("pi05_droid")(observation)
    assert (error.value.field, error.value.message) == (field, message)


@pytest.mark.parametrize("gripper", [0.25, np.float32(0.25), np.array(0.25)], ids=["number", "scalar", "0-d"])
def test_a_part_of_one_number_may_be_a_scalar(transform_of, gripper):
    transform = transform_of("pi05_droid")
    expected = transform(droid(gripper=np.array([0.25])))
    np.testing.assert_array_equal(transform(droid(gripper=gripper)).start_state, expected.start_state)


def test_the_joined_state_is_in_the_prompt_of_pi05_droid(transform_of, tiny_tokenizer):
    joints, gripper = np.linspace(-0.5, 0.5, 7), np.array([0.25])
    transform = transform_of("pi05_droid")
    row = transform(droid(joints, gripper))
    normalized = transform.state.stages(np.concatenate([joints, gripper]))[1]
    assert row.tokens == Tokenizer.load(tiny_tokenizer).encode("open the drawer", normalized, 200)
