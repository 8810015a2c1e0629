"""Decodes the frames of one episode at the cache's size, past those that cannot be decoded if need be."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from training.data.errors import FrameCorrupt
from training.data.lerobot.dataset import Dataset
from training.pi05.transforms.images import resize_with_pad

__all__ = ["decode_episode"]


def decode_episode(
    dataset: Dataset,
    key: str,
    number: int,
    images: UInt8[np.ndarray, "frames height width 3"],
    *,
    skip_corrupt: bool,
) -> dict[int, str]:
    """Decode and resize the rendered frames of an episode into `images`.

    Args:
        dataset: where the frames are.
        key: the camera.
        number: position of the episode.
        images: to fill, one place for each rendered frame.
        skip_corrupt: leave frames that cannot be decoded black.

    Returns:
        By place in `images`: why that frame cannot be decoded.

    Raises:
        FrameCorrupt: a frame cannot be decoded, unless they are skipped.
    """
    part = dataset.episodes[number]
    wanted = np.flatnonzero(dataset.rendered[part.start : part.stop]).tolist()
    corrupt: dict[int, str] = {}
    done = 0
    while done < len(wanted):
        try:
            for frame in dataset.frames(key, number, wanted[done:]):
                images[done] = resize_with_pad(frame, images.shape[1], images.shape[2])
                done += 1
        except FrameCorrupt as error:
            if not skip_corrupt:
                raise
            images[done] = 0
            corrupt[done] = error.message
            done += 1  # go on behind it
    return corrupt
