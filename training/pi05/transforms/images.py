"""Camera images on their way to the model: any size in, the model's size out, pixels as openpi makes them."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

__all__ = ["resize_with_pad"]


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
