"""Augmentation: openpi's own batch for its key, and what may change in an image and what may not."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from training.augment import augment

BASE, LEFT, RIGHT = "base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"
ROWS, HEIGHT, WIDTH = 64, 24, 40
KEY = jax.random.key(1)

run = jax.jit(augment)


def of(images, key=KEY):
    return jax.device_get(run(key, images))


def noise():
    return np.random.default_rng(0).integers(0, 256, (ROWS, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def changed():
    """Bytes of noise in a still and in a wrist camera, and what became of them."""
    return noise(), of({BASE: noise(), LEFT: noise()})


@pytest.mark.parametrize("slot", [BASE, LEFT, RIGHT])
def test_the_recorded_batch_is_openpis(tiny_pi05, openpi_data, slot):
    with np.load(openpi_data / "augment.npz") as recorded:
        arrays = dict(recorded)
    key = jax.random.wrap_key_data(arrays["key_data"])
    image = of({slot: tiny_pi05.recorded[f"in/image_u8/{slot}"]}, key)[slot]
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[:, ::8, ::8], arrays[f"out_stride8/{slot}"], atol=1e-4)
    whole = image.mean(), image.std(), image.min(), image.max()
    np.testing.assert_allclose(whole, arrays[f"mean_std/{slot}"], atol=1e-6)


def test_leaving_out_a_camera_changes_none_of_the_others(changed):
    images, both = changed
    for slot in (BASE, LEFT):
        np.testing.assert_allclose(of({slot: images})[slot], both[slot], atol=1e-4)  # two programs round differently


def test_floats_from_minus_one_to_one_are_taken_as_bytes_are(changed):
    images, both = changed
    floats = images.astype(np.float32) / 255.0 * 2.0 - 1.0
    np.testing.assert_allclose(of({LEFT: floats})[LEFT], both[LEFT], atol=1e-5)


def test_every_image_keeps_its_size_and_stays_within_minus_one_and_one(changed):
    for image in changed[1].values():
        assert image.shape == (ROWS, HEIGHT, WIDTH, 3)
        assert np.abs(image).max() <= 1 + 1e-6


def test_half_of_the_images_keep_their_colours(changed):
    images, both = changed
    untouched = np.abs(both[LEFT] - (images / 127.5 - 1)).max(axis=(1, 2, 3)) < 1e-5
    assert 0.3 * ROWS < untouched.sum() < 0.7 * ROWS


def test_a_wrist_camera_changes_pixel_by_pixel_and_a_still_one_moves():
    halves = np.zeros((ROWS, HEIGHT, WIDTH, 3), np.uint8)
    halves[:, :, : WIDTH // 2], halves[:, :, WIDTH // 2 :] = (200, 30, 60), (10, 90, 220)
    changed = of({BASE: halves, LEFT: halves})
    for half in np.split(changed[LEFT], 2, axis=2):
        assert np.ptp(half, axis=(1, 2)).max() < 1e-5
    assert np.mean(np.ptp(changed[BASE][:, :, WIDTH // 2, 0], axis=1) > 0.1) > 0.3  # the edge leans over the middle


def test_what_lies_outside_a_turned_image_is_black():
    white = of({BASE: np.full((ROWS, HEIGHT, WIDTH, 3), 255, np.uint8)})[BASE]
    corners = white[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.min() < -0.9
    assert white[:, HEIGHT // 2, WIDTH // 2].min() > 0


def test_brightness_contrast_and_hue_move_and_the_saturation_stays(changed):
    """openpi asks for saturation too; the library it calls computes that and drops it."""
    images, both = changed
    before, after = images / 255.0, (both[LEFT] + 1) / 2
    touched = np.abs(after - before).max(axis=(1, 2, 3)) > 1e-3
    before, after = before[touched], after[touched]

    def saturation(image):
        return np.ptp(image, axis=-1) / np.maximum(image.max(axis=-1), 1e-6)

    bright = before.max(axis=-1) > 0.2
    np.testing.assert_allclose(saturation(after)[bright], saturation(before)[bright], atol=1e-4)
    assert np.abs(after.max(axis=-1) - before.max(axis=-1)).max() > 0.1
    assert np.mean(after.argmax(axis=-1) != before.argmax(axis=-1)) > 0.01  # a turn of the hue past another primary


def test_rows_and_keys_draw_changes_of_their_own():
    same = np.broadcast_to(noise()[:1], (ROWS, HEIGHT, WIDTH, 3))
    once, again, other = of({BASE: same}), of({BASE: same}), of({BASE: same}, jax.random.key(2))
    np.testing.assert_array_equal(once[BASE], again[BASE])
    assert np.abs(once[BASE] - other[BASE]).max() > 0.1
    assert all(np.abs(once[BASE][0] - row).max() > 1e-3 for row in once[BASE][1:])


@pytest.mark.parametrize("extreme", [0, 255])
def test_black_and_white_images_stay_grey_and_finite(extreme):
    image = of({LEFT: np.full((ROWS, HEIGHT, WIDTH, 3), extreme, np.uint8)})[LEFT]
    assert np.all(np.isfinite(image))
    assert np.ptp(image, axis=-1).max() < 1e-6
