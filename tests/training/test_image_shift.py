"""Moved images: by whole pixels, no further than allowed, each on its own."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from training.experiment import ExperimentInvalid, override
from training.experiments import find_experiment
from training.image_shift import shift_images

BASE, WRIST = "base_0_rgb", "left_wrist_0_rgb"
ROWS, SIDE, PIXELS = 64, 12, 2

run = jax.jit(shift_images, static_argnums=2)


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8)


def moved(images, pixels=PIXELS, key=0):
    return jax.device_get(run(jax.random.key(key), images, pixels))


def moves_of(before, after):
    """(down, right) by which each image was moved, with its border repeated."""
    around = np.pad(before, ((0, 0), (PIXELS, PIXELS), (PIXELS, PIXELS), (0, 0)), mode="edge")
    steps = range(-PIXELS, PIXELS + 1)
    found = []
    for image, framed in zip(after, around, strict=True):
        fits = [
            (down, right)
            for down in steps
            for right in steps
            if np.array_equal(image, framed[PIXELS - down :, PIXELS - right :][:SIDE, :SIDE])
        ]
        assert len(fits) == 1
        found += fits
    return found


def test_every_image_is_moved_by_whole_pixels_and_its_border_repeated():
    before = noise()
    down, right = zip(*moves_of(before, moved({BASE: before})[BASE]), strict=True)
    assert set(down) == set(right) == {-2, -1, 0, 1, 2}
    assert down != right


def test_no_pixels_move_nothing_and_bytes_stay_bytes():
    after = moved({BASE: noise()}, 0)[BASE]
    assert after.dtype == np.uint8
    np.testing.assert_array_equal(after, noise())


def test_cameras_move_on_their_own_and_one_that_is_left_out_changes_no_other():
    both, alone = moved({BASE: noise(), WRIST: noise(1)}), moved({BASE: noise()})
    np.testing.assert_array_equal(both[BASE], alone[BASE])
    assert moves_of(noise(), both[BASE]) != moves_of(noise(1), both[WRIST])


def test_the_key_decides():
    first, again, other = (moved({BASE: noise()}, key=key)[BASE] for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_images_cannot_be_moved_out_of_sight():
    small = find_experiment("pi05_maniskill_pushcube_small")
    assert dataclasses.replace(small, shift_pixels=3).shift_pixels == 3
    with pytest.raises(ExperimentInvalid) as told:
        override(small, ["shift_pixels=64"])
    assert told.value.message == (
        "The settings are not valid: shift_pixels 64 is not in 0..63: the model's images have 64 pixels."
    )
