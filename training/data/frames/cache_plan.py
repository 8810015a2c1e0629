"""Where the cache of a dataset lies, and which cameras of it are still to be decoded."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.frames.decoded_episode import decode_episode
from training.data.frames.manifest import Manifest, read_manifest
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.fingerprint import fingerprint

__all__ = ["CachePlan", "Shape", "plan_cache"]

Shape = tuple[int, int, int, int]
"""(frames, height, width, 3)."""
_TRIED_AGAIN = 8
"""Episodes with corrupt frames that are decoded again when a cache is opened."""


@dataclass(frozen=True)
class CachePlan:
    """The cache of one dataset at one size."""

    dataset: Dataset
    content: str
    """The dataset's fingerprint."""
    directory: Path
    shape: Shape
    """Of each camera's array."""
    missing: tuple[str, ...]
    """Cameras to decode."""

    def path(self, key: str) -> Path:
        """The array of a camera."""
        return self.directory / f"{key.replace('/', '.')}.npy"

    @property
    def needed(self) -> int:
        """Bytes of the arrays that are missing."""
        return len(self.missing) * math.prod(self.shape)

    @property
    def held(self) -> int:
        """Bytes of the disk that unfinished or replaced arrays of theirs have already."""
        arrays = [self.path(key) for key in self.missing]
        paths = [*arrays, *(array.with_suffix(".npy.partial") for array in arrays)]
        return sum(path.stat().st_blocks * 512 for path in paths if path.exists())


def plan_cache(dataset: Dataset, root: Path, height: int, width: int) -> CachePlan:
    """The cache of a dataset below `root`, of frames of that size; missing is also what can be decoded better now."""
    content = fingerprint(dataset)
    shape = (int(dataset.rendered.sum()), height, width, 3)
    whole = CachePlan(dataset, content, root / f"{content[:16]}-{height}x{width}", shape, ())
    missing = tuple(key for key in dataset.cameras if _is_missing(whole, key))
    return CachePlan(dataset, content, whole.directory, shape, missing)


def _is_missing(plan: CachePlan, key: str) -> bool:
    path = plan.path(key)
    manifest = read_manifest(path.with_suffix(".json"))
    if manifest is None or not path.exists():
        return True
    if manifest.fingerprint != plan.content or not _decodes_better(plan, key, manifest):
        return False
    print(f"Frames in {path} could not be decoded before and now can be: decoding anew", file=sys.stderr)
    return True


def _decodes_better(plan: CachePlan, key: str, manifest: Manifest) -> bool:
    """A disk that did not answer, or another copy of the dataset, must not leave frames out for good."""
    holes = [(number, episode) for number, episode in enumerate(manifest.episodes) if episode.corrupt]
    for number, episode in holes[:_TRIED_AGAIN]:
        images = np.empty((episode.stop - episode.start, *plan.shape[1:]), np.uint8)
        if len(decode_episode(plan.dataset, key, number, images, skip_corrupt=True)) < len(episode.corrupt):
            return True
    return False
