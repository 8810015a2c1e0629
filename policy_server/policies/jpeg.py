"""JPEG images of requests, decoded: nothing is decoded that is not of its camera's size."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL.JpegImagePlugin import JpegImageFile

from policy_protocol.errors import InvalidObservation
from policy_protocol.jpeg import JpegImage
from policy_protocol.messages import Observation
from policy_protocol.spec import CameraSpec

__all__ = ["decoded"]

_HEADER_BYTES = 65_536
"""Room for tables and what cameras write about themselves; beside it a JPEG is never larger than its pixels."""
_MOST_SCANS = 8
"""Each scan costs a pass over the whole image, whatever its bytes; a baseline JPEG in colour has one or three, and the
preview in its header as many."""


class _Header(JpegImageFile):
    """Reads what is needed to decode, and nothing of what cameras write about themselves: EXIF may hold thousands of
    entries that overlap, each a copy and a warning."""

    def _read_dpi_from_exif(self) -> None:
        pass


def decoded(observation: Observation, cameras: Mapping[str, CameraSpec], path: str = "") -> Observation:
    """The observation with pixels where JPEGs were; the same object where there were none.

    Args:
        cameras: by wire key.
        path: of the map that `observation` is, with a slash at its end.

    Raises:
        InvalidObservation: a JPEG is not of its camera's size, cannot be read, or is under no camera's key; names it.
    """
    if not any(isinstance(value, JpegImage | Mapping) for value in observation.values()):
        return observation
    return {key: _value(value, cameras, f"{path}{key}") for key, value in observation.items()}


def _value(value: Any, cameras: Mapping[str, CameraSpec], key: str) -> Any:
    if isinstance(value, Mapping):
        return decoded(value, cameras, f"{key}/")
    if not isinstance(value, JpegImage):
        return value
    if key not in cameras:
        raise InvalidObservation(
            f"{key} is a JPEG, but the policy has no camera of this name. It has {', '.join(cameras) or 'none'}.",
            field=key,
        )
    return _pixels(value.data, cameras[key], key)


def _pixels(data: bytes, camera: CameraSpec, key: str) -> UInt8[np.ndarray, "height width 3"]:
    largest = 3 * camera.height * camera.width + _HEADER_BYTES
    if len(data) > largest:
        raise _refused(key, f"has {len(data):,} bytes; of its camera's size it has at most {largest:,}")
    try:
        image = _Header(io.BytesIO(data))  # Image.open would try every kind of JPEG file
        _require_plain(image, camera, key)
        _require_few_scans(data, key)
        return np.asarray(image)
    except InvalidObservation:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error …
        raise _refused(key, "cannot be read: it is damaged, cut off, or no JPEG") from error


def _require_plain(image: JpegImageFile, camera: CameraSpec, key: str) -> None:
    if image.size != (camera.width, camera.height):
        width, height = image.size
        raise _refused(key, f"is {height} x {width} pixels, but its camera is {camera.height} x {camera.width}")
    if image.mode != "RGB":
        raise _refused(key, f"is in {image.mode} instead of colour (RGB)")
    if "progressive" in image.info:
        raise _refused(key, "is progressive instead of baseline")


def _require_few_scans(data: bytes, key: str) -> None:
    if data.count(b"\xff\xda") > _MOST_SCANS:  # begins a scan, and nothing else
        raise _refused(key, f"has more than {_MOST_SCANS} scans")


def _refused(key: str, what: str) -> InvalidObservation:
    return InvalidObservation(f"The JPEG {key} {what}. Send another one, or raw uint8 pixels.", field=key)
