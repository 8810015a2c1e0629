"""Training images moved by a few whole pixels, on the device (Yarats et al. 2021, DrQ): the cheap augmentation.

A policy that learns from few demonstrations can tell them apart by single pixels; moved images leave it the objects.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from training.pi05.model.config import SLOTS

__all__ = ["shift_images"]

Image = UInt8[Array, "batch height width 3"] | Float[Array, "batch height width 3"]


def shift_images(key: PRNGKeyArray, images: Mapping[str, Image], pixels: int) -> dict[str, Image]:
    """Each image moved by up to `pixels` up or down and left or right; the border that is left behind is repeated.

    Args:
        key: of this batch. Every camera is moved on its own: leaving one out changes none of the others.
        images: slot -> bytes or floats; they come back as they are, moved.
        pixels: 0 moves nothing.
    """
    return {slot: _shift(jax.random.fold_in(key, SLOTS.index(slot)), image, pixels) for slot, image in images.items()}


def _shift(key: PRNGKeyArray, images: Image, pixels: int) -> Image:
    corners = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)
    room = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    return jax.vmap(lambda image, corner: _cut(image, corner, images.shape[1:]))(
        jnp.pad(images, room, mode="edge"), corners
    )


def _cut(image: Array, corner: Int[Array, "2"], shape: tuple[int, ...]) -> Array:
    return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape)
