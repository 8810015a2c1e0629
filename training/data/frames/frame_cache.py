"""Decoded frames on disk: one memory-mapped uint8 array per camera, at the model's image size.

Decoding PNG made the original training step 88% waiting; a memory map is read at the speed of the page cache. A
cache is keyed by the dataset's fingerprint and the size, so that it can be neither stale nor of the wrong size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from training.data.errors import FrameCacheUnusable
from training.data.frames.frame_cache_build import build_camera, check_room
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.fingerprint import fingerprint
from training.pi05.download import cache_directory

__all__ = ["FrameCache", "default_cache_root", "open_frame_cache"]


@dataclass(frozen=True)
class FrameCache:
    """All frames of a dataset, decoded and resized."""

    directory: Path
    images: Mapping[str, UInt8[np.ndarray, "frames height width 3"]]
    """By camera key: the frames that were really rendered, in the order of their rows; memory-mapped."""
    slots: Int64[np.ndarray, "rows"]
    """Which frame shows each row; rows between two rendered frames show the earlier one."""

    def gather(self, key: str, rows: Int64[np.ndarray, "batch"]) -> UInt8[np.ndarray, "batch height width 3"]:
        """Copy the frames of some rows."""
        return np.take(self.images[key], self.slots[rows], axis=0)


def default_cache_root() -> Path:
    """Where caches go unless told otherwise: `frames` in the user's cache."""
    return cache_directory() / "frames"


def open_frame_cache(dataset: Dataset, root: str | os.PathLike[str], *, height: int, width: int) -> FrameCache:
    """The cache of a dataset below the folder `root`, built first where it is missing.

    Each camera is built under a temporary name and renamed when complete; an interrupted build goes on where it
    stopped. Size and progress are shown on standard error.

    Args:
        dataset: every camera of it is cached.
        root: holds one folder per dataset and size.
        height: of the cached frames in pixels; frames are resized keeping the aspect, the rest black.
        width: likewise.

    Raises:
        FrameCorrupt: a frame cannot be decoded; names file, episode, frame and row.
        FrameCacheUnusable: not enough room on the disk, or a cache file that is damaged.
    """
    directory = Path(root) / f"{fingerprint(dataset)[:16]}-{height}x{width}"
    shape = (int(dataset.rendered.sum()), height, width, 3)
    paths = {key: directory / f"{key.replace('/', '.')}.npy" for key in dataset.cameras}
    missing = {key: path for key, path in paths.items() if not path.exists()}
    if missing:
        directory.mkdir(parents=True, exist_ok=True)
        check_room(directory, shape, len(missing))
    for key, path in missing.items():
        build_camera(dataset, key, path, shape)
    slots = np.cumsum(dataset.rendered, dtype=np.int64) - 1
    return FrameCache(directory, {key: _open(path, shape) for key, path in paths.items()}, slots)


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise FrameCacheUnusable(f"The frame cache {path} is damaged: {error}. Remove it to build it again.") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise FrameCacheUnusable(
            f"The frame cache {path} holds {images.dtype} {images.shape} but the dataset needs uint8 {shape}. "
            "Remove it to build it again."
        )
    return images
