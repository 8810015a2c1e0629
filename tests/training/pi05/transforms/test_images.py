"""Resizing: openpi's pixels, not merely close to them."""

from __future__ import annotations

import numpy as np
import pytest

from training.pi05.transforms.images import resize_with_pad


@pytest.mark.parametrize("size", ["480x640", "128x128", "100x37", "37x100", "224x224", "225x224", "1x1", "batch60x80"])
def test_every_pixel_is_openpis(openpi_data, size):
    with np.load(openpi_data / "resize.npz") as recorded:
        np.testing.assert_array_equal(resize_with_pad(recorded[f"{size}/in"], 224, 224), recorded[f"{size}/pil"])


def test_an_image_of_the_right_size_passes_untouched():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert resize_with_pad(image, 64, 64) is image


def test_the_aspect_is_kept_and_the_rest_is_black():
    wide = resize_with_pad(np.full((32, 64, 3), 200, np.uint8), 64, 64)
    np.testing.assert_array_equal(wide[16:48], 200)
    assert not np.any(wide[:16])
    assert not np.any(wide[48:])
