"""Images on their way to the server as JPEG: smaller, and not the pixels that were rendered."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8

from policy_protocol import Observation, PolicySpec
from policy_protocol.errors import InvalidObservation
from policy_protocol.jpeg import JpegImage
from sim_client.errors import InvalidOption

__all__ = ["require_quality", "with_jpeg"]


def require_quality(quality: int | None) -> None:
    """Raises `InvalidOption` when it is not None and not in 1..100."""
    if quality is not None and not (isinstance(quality, int) and 1 <= quality <= 100):
        raise InvalidOption(f"--jpeg-quality {quality} is no quality: pass a whole number from 1 to 100.")


def with_jpeg(observation: Observation, spec: PolicySpec, quality: int, batched: bool) -> Observation:
    """The observation with a JPEG for each image of the spec's cameras; a list of them in a batch.

    Raises:
        InvalidObservation: an image is not (height, width, 3) uint8, with a leading axis in a batch.
    """
    encoded = dict(observation)
    for camera in spec.observation.cameras:
        if camera.key in observation:
            images = _images(observation[camera.key], camera.key, batched)
            jpegs = [JpegImage(_encode(image, quality)) for image in images]
            encoded[camera.key] = jpegs if batched else jpegs[0]
    return encoded


def _images(value: object, key: str, batched: bool) -> UInt8[np.ndarray, "batch height width 3"]:
    shape = "(batch, height, width, 3)" if batched else "(height, width, 3)"
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        raise InvalidObservation(f"{key} must be {shape} uint8 to be sent as JPEG.", field=key)
    if value.ndim != 3 + batched or value.shape[-1] != 3:
        raise InvalidObservation(f"{key} must be {shape} uint8 to be sent as JPEG, not {value.shape}.", field=key)
    return value if batched else value[None]


def _encode(image: UInt8[np.ndarray, "height width 3"], quality: int) -> bytes:
    """Colour at full resolution: halved, as is usual, a small object takes the colour of what is around it."""
    from PIL import Image  # takes a moment, and most clients send pixels

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
