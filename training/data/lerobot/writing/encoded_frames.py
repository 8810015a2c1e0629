"""Frames as PNG, ready to be written, with the colours that the dataset's statistics are made of."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from training.data.lerobot.writing.statistics import ColourHistogram

__all__ = ["EncodedFrames", "encode_frames"]


@dataclass(frozen=True)
class EncodedFrames:
    """An episode's frames of one camera."""

    pngs: Sequence[bytes]
    size: tuple[int, int]
    """(height, width) in pixels."""
    colours: ColourHistogram

    def __len__(self) -> int:
        return len(self.pngs)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, 3), as the array had it."""
        return (len(self.pngs), *self.size, 3)


def encode_frames(frames: UInt8[np.ndarray, "frames height width 3"]) -> EncodedFrames:
    """PNG of each frame; a frame that repeats the one before is encoded once, and parquet's dictionary stores it once.

    Compression level 1, as in lerobot: a fifth of the time of the default for a fifth more bytes.
    """
    encoded: list[bytes] = []
    for index, frame in enumerate(frames):
        if index and np.array_equal(frame, frames[index - 1]):
            encoded.append(encoded[-1])
            continue
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="PNG", compress_level=1)
        encoded.append(buffer.getvalue())
    colours = ColourHistogram()
    colours.add(frames)
    return EncodedFrames(encoded, (frames.shape[1], frames.shape[2]), colours)
