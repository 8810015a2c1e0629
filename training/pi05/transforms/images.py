"""Camera images on their way to the model: any size in, the model's size out, pixels as openpi makes them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from policy_protocol.errors import InvalidObservation
from training.pi05.transforms.wire import array_of

__all__ = ["parse_image", "resize_with_pad"]


def parse_image(value: object, key: str) -> UInt8[np.ndarray, "height width 3"]:
    """An image as uint8, channels last. Also takes channels first, and floats from 0 to 1 as LeRobot yields them.

    Raises:
        InvalidObservation: wrong rank, channels, dtype or range; names the key.
    """
    image = array_of(value, key)
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[-1]) or 0 in image.shape:
        raise InvalidObservation(f"{key} must be an image (height, width, 3), not shape {image.shape}.", field=key)
    if image.shape[-1] != 3:
        image = np.moveaxis(image, 0, -1)
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f":
        raise InvalidObservation(f"{key} must be uint8 (or float from 0 to 1), not {image.dtype}.", field=key)
    return _float_image(image, key)


def _float_image(image: Num[np.ndarray, "height width 3"], key: str) -> UInt8[np.ndarray, "height width 3"]:
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):  # also refuses NaN
        raise InvalidObservation(
            f"{key} is a float image with values from {low:g} to {high:g}; floats must lie in 0..1. Send uint8.",
            field=key,
        )
    return (255 * image).astype(np.uint8)


def resize_with_pad(
    images: UInt8[np.ndarray, "*batch height width 3"], height: int, width: int
) -> UInt8[np.ndarray, "*batch new_height new_width 3"]:
    """Resize keeping the aspect ratio and pad the rest black, centred; an image of the right size passes untouched.

    PIL's bilinear filter on uint8, as openpi serves: the pixels are equal to openpi's, not merely close.
    """
    if images.shape[-3:-1] == (height, width):
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    resized = np.stack([_resize_one(image, height, width) for image in flat])
    return resized.reshape(*images.shape[:-3], height, width, 3)


def _resize_one(image: UInt8[np.ndarray, "height width 3"], height: int, width: int) -> np.ndarray:
    ratio = max(image.shape[1] / width, image.shape[0] / height)
    new_width, new_height = max(1, int(image.shape[1] / ratio)), max(1, int(image.shape[0] / ratio))
    resized = Image.fromarray(image).resize((new_width, new_height), resample=Image.Resampling.BILINEAR)
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = max(0, (height - new_height) // 2), max(0, (width - new_width) // 2)
    canvas[top : top + new_height, left : left + new_width] = np.asarray(resized)
    return canvas
