"""Decoded frames on disk: one memory-mapped uint8 array per camera, at the model's image size.

Decoding PNG made the original training step 88% waiting; a memory map is read at the speed of the page cache. A
cache is keyed by the dataset's fingerprint and the size, so that it can be neither stale nor of the wrong size, and
says in a manifest what it is of, with checksums.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from training.data.errors import FrameCacheUnusable, FrameCorrupt
from training.data.frames.frame_cache_build import build_camera, check_room
from training.data.frames.manifest import Manifest, check_content, read_manifest
from training.data.frames.read_ahead import read_ahead
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.fingerprint import fingerprint
from training.pi05.download import cache_directory

__all__ = ["FrameCache", "default_cache_root", "open_frame_cache"]


@dataclass(frozen=True)
class FrameCache:
    """All frames of a dataset, decoded and resized."""

    directory: Path
    images: Mapping[str, UInt8[np.memmap, "frames height width 3"]]
    """By camera key: the frames that were really rendered, in the order of their rows; memory-mapped."""
    slots: Int64[np.ndarray, "rows"]
    """Which frame shows each row; rows between two rendered frames show the earlier one."""
    corrupt: Mapping[str, Mapping[int, str]]
    """By camera key and place among its frames: why that one could not be decoded. Empty unless they were skipped."""

    @property
    def corrupt_frames(self) -> int:
        """How many frames of all cameras are missing."""
        return sum(map(len, self.corrupt.values()))

    @property
    def usable(self) -> Bool[np.ndarray, "rows"]:
        """Rows whose frames could all be decoded."""
        missing = {place for places in self.corrupt.values() for place in places}
        return ~np.isin(self.slots, sorted(missing))

    def gather(self, key: str, rows: Int64[np.ndarray, "batch"]) -> UInt8[np.ndarray, "batch height width 3"]:
        """Copy the frames of some rows."""
        frames = np.empty((len(rows), *self.images[key].shape[1:]), np.uint8)
        self.gather_into(frames, key, rows, range(len(rows)))
        return frames

    def gather_into(
        self,
        frames: UInt8[np.ndarray, "batch height width 3"],
        key: str,
        rows: Int64[np.ndarray, "own"],
        places: Iterable[int],
    ) -> None:
        """Copy the frames of some rows to their places in a batch, one for each row."""
        slots = self.slots[rows]
        read_ahead(self.images[key], slots)
        images = np.asarray(self.images[key])  # a plain view: every index into a memmap makes another
        for place, slot in zip(places, slots.tolist(), strict=True):
            frames[place] = images[slot]


def default_cache_root() -> Path:
    """Where caches go unless told otherwise: `frames` in the user's cache."""
    return cache_directory() / "frames"


def open_frame_cache(
    dataset: Dataset, root: str | os.PathLike[str], *, height: int, width: int, skip_corrupt: bool = False
) -> FrameCache:
    """The cache of a dataset below the folder `root`, built first where it is missing.

    Each camera is built under a temporary name and renamed when complete; an interrupted build goes on where it
    stopped, and frames without a manifest, of an earlier version's cache, are built anew. Size and progress are shown
    on standard error.

    Args:
        dataset: every camera of it is cached.
        root: holds one folder per dataset and size.
        height: of the cached frames in pixels; frames are resized keeping the aspect, the rest black.
        width: likewise.
        skip_corrupt: go on without the frames that cannot be decoded, and count them on standard error.

    Raises:
        FrameCorrupt: a frame cannot be decoded; names file, episode, frame and row.
        FrameCacheUnusable: not enough room on the disk, or a cache that is damaged or of another dataset.
    """
    content = fingerprint(dataset)
    directory = Path(root) / f"{content[:16]}-{height}x{width}"
    shape = (int(dataset.rendered.sum()), height, width, 3)
    paths = {key: directory / f"{key.replace('/', '.')}.npy" for key in dataset.cameras}
    missing = {key: path for key, path in paths.items() if not path.exists() or _manifest_of(path) is None}
    if missing:
        directory.mkdir(parents=True, exist_ok=True)
        check_room(directory, shape, len(missing))
    for key, path in missing.items():
        path.unlink(missing_ok=True)
        build_camera(dataset, key, path, shape, content, skip_corrupt=skip_corrupt)
    manifests = {key: _manifest(path, content) for key, path in paths.items()}
    images = {key: _open(path, shape, manifests[key]) for key, path in paths.items()}
    slots = np.cumsum(dataset.rendered, dtype=np.int64) - 1
    cache = FrameCache(directory, images, slots, {key: part.corrupt for key, part in manifests.items()})
    _count_corrupt(dataset, cache, skip_corrupt)
    return cache


def _manifest_of(path: Path) -> Manifest | None:
    return read_manifest(path.with_suffix(".json"))


def _manifest(path: Path, content: str) -> Manifest:
    manifest = _manifest_of(path)
    assert manifest is not None, "built where it was missing"
    if manifest.fingerprint != content:
        raise FrameCacheUnusable(
            f"The frame cache {path} is stale: it was decoded from a dataset with the fingerprint "
            f"{manifest.fingerprint[:16]}, but this one has {content[:16]}. Remove it to build it again."
        )
    return manifest


def _open(path: Path, shape: tuple[int, ...], manifest: Manifest) -> np.memmap:
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise FrameCacheUnusable(f"The frame cache {path} is damaged: {error}. Remove it to build it again.") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise FrameCacheUnusable(
            f"The frame cache {path} holds {images.dtype} {images.shape} but the dataset needs uint8 {shape}. "
            "Remove it to build it again."
        )
    check_content(path, images, manifest)
    return images


def _count_corrupt(dataset: Dataset, cache: FrameCache, skip_corrupt: bool) -> None:
    """Frames that an earlier run left out are missing for this one too, unless it leaves them out as well."""
    if not cache.corrupt_frames:
        return
    first = next(reason for places in cache.corrupt.values() for reason in places.values())
    if not skip_corrupt:
        raise FrameCorrupt(first)
    print(
        f"Skipped {cache.corrupt_frames} of {len(cache.images) * (cache.slots[-1] + 1)} frames of {dataset.root} that "
        f"cannot be decoded. The first: {first}",
        file=sys.stderr,
    )
