"""Random changes of the training images, on the device: the ones that openpi trains with, drawn from the same stream.

openpi calls augmax 0.3.4: a camera that stands still (its slot has no "wrist") is cropped to 95 %, stretched back and
turned by up to 5 degrees in one bilinear resampling, black outside; then every camera's colours are jittered. What its
call does is kept, not what it asks for: half of the images keep their colours (augmax's default p), the hue moves
though nobody set it (its default, a tenth of the circle), the saturation does not (augmax drops the result), and
brightness and contrast act on the value of HSV.

Keys. Row i of every camera has key i of the batch's, so leaving out a camera changes none of the others.

    still camera   row -> geometry, colour;  geometry -> crop, (resize), turn;  colour -> jitter (one of one)
    wrist camera   row -> colour (one of one);                                  colour -> jitter (one of one)
    jitter         -> brightness, contrast, hue, (2 unused); whether to jitter is drawn from the jitter key itself

Written here and not called: more than twice as fast on a CPU as augmax 0.4.1 (which gives the same numbers under
today's jax), and a release of augmax that mends the saturation would change what a seed means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

__all__ = ["augment"]

_CROP = 0.95
"""Share of each side that the crop keeps."""
_TURN = math.radians(5)
_BRIGHTNESS, _CONTRAST = 0.3, 0.4
_HUE = 0.1 * 6
"""In sixths of the colour circle."""
_JITTER_PROBABILITY = 0.5


def augment(
    key: PRNGKeyArray, images: Mapping[str, UInt8[Array, "batch height width 3"] | Float[Array, "batch height width 3"]]
) -> dict[str, Float[Array, "batch height width 3"]]:
    """One random change of each image, of the same size, in [-1, 1].

    Args:
        key: what openpi gives to `preprocess_observation`: the first of three that a step's key splits into.
        images: slot -> bytes, or floats in [-1, 1]. Any size and any subset of the slots.
    """
    return {slot: _augment_camera(key, image, moves="wrist" not in slot) for slot, image in images.items()}


def _augment_camera(key: PRNGKeyArray, images: Array, moves: bool) -> Float[Array, "batch height width 3"]:
    floating = jnp.issubdtype(images.dtype, jnp.floating)
    unit = images / 2.0 + 0.5 if floating else images.astype(jnp.float32) / 255.0
    rows = jax.random.split(key, images.shape[0])
    return jax.vmap(partial(_augment_image, moves=moves))(rows, unit) * 2.0 - 1.0


def _augment_image(
    key: PRNGKeyArray, image: Float[Array, "height width 3"], moves: bool
) -> Float[Array, "height width 3"]:
    """An image in [0, 1]; every split of the stream that is not a draw is here."""
    if moves:
        geometry, colour = jax.random.split(key)
        positions = _positions(geometry, *image.shape[:2])
        image = jax.vmap(partial(map_coordinates, coordinates=positions, order=1), in_axes=-1, out_axes=-1)(image)
    else:
        (colour,) = jax.random.split(key, 1)
    (jitter,) = jax.random.split(colour, 1)
    return jnp.where(jax.random.bernoulli(jitter, _JITTER_PROBABILITY), _jitter(jitter, image), image)


def _positions(key: PRNGKeyArray, height: int, width: int) -> list[Float[Array, "height width"]]:
    """Row and column in the image of every pixel of its cropped, stretched and turned version."""
    crop_key, _, turn_key = jax.random.split(key, 3)
    crop = int(height * _CROP), int(width * _CROP)
    room = jnp.array([height - crop[0], width - crop[1]]) / 2
    shift = jax.random.uniform(crop_key, (2,), minval=-room, maxval=room)
    angle = jax.random.uniform(turn_key, minval=-_TURN, maxval=_TURN)
    # From the centre, so that the turn is about it. Element by element: a matrix product may be less than float32.
    y = jnp.arange(height)[:, None] - (height - 1) / 2
    x = jnp.arange(width)[None, :] - (width - 1) / 2
    turned = jnp.cos(angle) * y + jnp.sin(angle) * x, jnp.cos(angle) * x - jnp.sin(angle) * y
    return [
        crop[axis] / side * turned[axis] + shift[axis] + (side - 1) / 2 for axis, side in enumerate((height, width))
    ]


def _jitter(key: PRNGKeyArray, image: Float[Array, "height width 3"]) -> Float[Array, "height width 3"]:
    brightness_key, contrast_key, hue_key, _, _ = jax.random.split(key, 5)
    hue, saturation, value = _hsv(image)
    value = _brighten(value, jax.random.uniform(brightness_key, minval=-_BRIGHTNESS, maxval=_BRIGHTNESS))
    value = _contrast(value, jax.random.uniform(contrast_key, minval=-_CONTRAST, maxval=_CONTRAST))
    return _rgb(hue + jax.random.uniform(hue_key, minval=-_HUE, maxval=_HUE), saturation, value)


def _hsv(image: Float[Array, "height width 3"]) -> tuple[Array, Array, Array]:
    """Hue in sixths of the circle, saturation and value; a grey has hue 0."""
    red, green, blue = jnp.moveaxis(image, -1, 0)
    value, strongest = jnp.max(image, axis=-1), jnp.argmax(image, axis=-1)
    spread = value - jnp.min(image, axis=-1)
    difference = jnp.select([strongest == 0, strongest == 1], [green - blue, blue - red], red - green)
    hue = jnp.where(spread == 0, 0.0, 2 * strongest + difference / jnp.where(spread == 0, 1.0, spread))
    return hue, jnp.where(value == 0, 0.0, spread / jnp.where(value == 0, 1.0, value)), value


def _rgb(hue: Array, saturation: Array, value: Array) -> Float[Array, "height width 3"]:
    distance = jnp.mod(jnp.array([5.0, 3.0, 1.0]) + hue[..., None], 6)
    return value[..., None] * (1 - saturation[..., None] * jnp.clip(jnp.minimum(distance, 4 - distance), 0, 1))


def _brighten(value: Array, amount: Float[Array, ""]) -> Array:
    """Towards white for a positive amount, towards black for a negative one."""
    return jnp.where(amount < 0, value * (1 + amount), value * (1 - amount) + amount)


def _contrast(value: Array, amount: Float[Array, ""]) -> Array:
    """A line of three pieces through (0, 0), (1/2, 1/2) and (1, 1), steeper in the middle for a positive amount."""
    slant = jnp.tan((amount + 1) * (jnp.pi / 4))
    knee = (slant - slant**2) / (2 * (1 - slant**2))
    middle = slant * (value - 0.5) + 0.5
    return jnp.select([value < knee, value > 1 - knee], [value / slant, value / slant + 1 - 1 / slant], middle)
