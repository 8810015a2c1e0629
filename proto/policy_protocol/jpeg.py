"""An image that travels as a JPEG in place of its pixels: a tenth of the bytes, and not the same pixels."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JPEG_FEATURE", "JpegImage"]

JPEG_FEATURE = "jpeg"
"""Name in a greeting's `features` of a server that takes them."""


@dataclass(frozen=True)
class JpegImage:
    """Stands under a camera's wire key where (height, width, 3) uint8 may stand; in a batch a list of them.

    In msgpack it is the map `{"__jpeg__": true, "data": bytes}`, in protobuf `Value.jpeg`.
    """

    data: bytes
    """A baseline JPEG in colour, of exactly the size that the spec gives the camera. Nobody has looked at it yet."""
