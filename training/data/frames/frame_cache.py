"""Decoded frames on disk: one memory-mapped uint8 array per camera, at the model's image size.

Decoding PNG made the original training step 88% waiting; a memory map is read at the speed of the page cache. A
cache is keyed by the dataset's fingerprint and the size, so that it can be neither stale nor of the wrong size, and
says in a manifest what it is of, with checksums.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from training.data.errors import FrameCacheUnusable, FrameCorrupt
from training.data.frames.cache_plan import CachePlan, plan_cache
from training.data.frames.frame_cache_build import build_camera, check_room
from training.data.frames.manifest import Manifest, check_content, read_manifest
from training.data.frames.read_ahead import read_ahead
from training.data.lerobot.dataset import Dataset
from training.pi05.download import cache_directory

__all__ = ["FrameCache", "default_cache_root", "open_frame_cache", "open_frame_caches"]


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
    on standard error. Frames that could not be decoded are tried again, and their camera is built anew if some now can.

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
    return open_frame_caches([dataset], root, height=height, width=width, skip_corrupt=skip_corrupt)[0]


def open_frame_caches(
    datasets: Sequence[Dataset],
    root: str | os.PathLike[str],
    *,
    height: int,
    width: int,
    skip_corrupt: bool = False,
) -> list[FrameCache]:
    """The cache of each dataset, as `open_frame_cache`; whether there is room for all is known before one is built."""
    plans = [plan_cache(dataset, Path(root), height, width) for dataset in datasets]
    unbuilt = {plan.directory: plan for plan in plans if plan.missing}
    for directory in unbuilt:
        directory.mkdir(parents=True, exist_ok=True)
    if unbuilt:
        check_room(Path(root), list(unbuilt.values()))
    for plan in unbuilt.values():
        for key in plan.missing:
            plan.path(key).unlink(missing_ok=True)
            build_camera(plan, key, skip_corrupt=skip_corrupt)
    return [_opened(plan, skip_corrupt) for plan in plans]


def _opened(plan: CachePlan, skip_corrupt: bool) -> FrameCache:
    manifests = {key: _manifest(plan.path(key), plan.content) for key in plan.dataset.cameras}
    images = {key: _open(plan.path(key), plan.shape, manifest) for key, manifest in manifests.items()}
    slots = np.cumsum(plan.dataset.rendered, dtype=np.int64) - 1
    cache = FrameCache(plan.directory, images, slots, {key: part.corrupt for key, part in manifests.items()})
    _count_corrupt(plan.dataset, cache, skip_corrupt)
    return cache


def _manifest(path: Path, content: str) -> Manifest:
    manifest = read_manifest(path.with_suffix(".json"))
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
        raise FrameCorrupt(f"{first} (Noted in {cache.directory}: remove that folder to decode every frame again.)")
    print(
        f"Skipped {cache.corrupt_frames} of {len(cache.images) * (cache.slots[-1] + 1)} frames of {dataset.root} that "
        f"cannot be decoded. The first: {first}",
        file=sys.stderr,
    )
