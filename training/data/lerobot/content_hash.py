"""Hashes all that a dataset holds, whatever its container: every column, task and stored frame. Decodes nothing."""

from __future__ import annotations

import hashlib

from training.data.errors import FrameCorrupt
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.image_frames import iterate_stored_images
from training.data.lerobot.metadata import Episode

__all__ = ["ContentHash"]

_BLOCK = 1 << 20
_MISSING = b"missing"


class ContentHash:
    """SHA-256 over the number columns, the task texts and the stored frames, in the order of the rows.

    A frame or a video that is missing counts as such: decoding names it.

    Args:
        dataset: all of it is read.

    Raises:
        DatasetInvalid: a column cannot be read.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._digest = hashlib.sha256()
        self.complete = True
        """Whether every frame could be read: one that could not may be there the next time."""
        for key in sorted(dataset.features):
            feature = dataset.features[key]
            self._digest.update(f"{key}:{feature.dtype}:{feature.shape}\n".encode())
            if feature.dtype == "video":
                self._add_videos(dataset, key)
            elif feature.dtype == "image":
                for episode in dataset.episodes:
                    self._add_images(dataset, episode, key)
            elif feature.dtype == "string":
                self._digest.update("\n".join(map(str, dataset.column(key).ravel())).encode())
            else:
                self._digest.update(dataset.column(key).tobytes())
        tasks = sorted(dataset.metadata.tasks.items())
        self._digest.update("\n".join(f"{index}:{task}" for index, task in tasks).encode())

    @property
    def hex(self) -> str:
        """64 hexadecimal digits."""
        return self._digest.hexdigest()

    def _add_images(self, dataset: Dataset, episode: Episode, key: str) -> None:
        done = 0
        while done < episode.length:
            try:
                for data in iterate_stored_images(dataset.root, episode, key, range(done, episode.length)):
                    self._digest.update(data)
                    done += 1
            except FrameCorrupt:
                self._add_missing()
                done += 1

    def _add_videos(self, dataset: Dataset, key: str) -> None:
        for path in dict.fromkeys(episode.videos[key].path for episode in dataset.episodes):
            if not path.is_file():
                self._add_missing()
                continue
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    self._digest.update(block)

    def _add_missing(self) -> None:
        self._digest.update(_MISSING)
        self.complete = False
