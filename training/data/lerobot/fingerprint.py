"""The content hash of a dataset: what a cache is keyed by and what a checkpoint remembers of its data."""

from __future__ import annotations

import hashlib

from training.data.errors import FrameCorrupt
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.image_frames import iterate_stored_images
from training.data.lerobot.metadata import Episode

__all__ = ["fingerprint"]

_BLOCK = 1 << 20
_MISSING = b"missing"


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 (hex) over the number columns, the task texts and the stored frames, in the order of the rows.

    The container does not count: v2.1 and v3.0 with the same images have the same fingerprint. A conversion stores it
    in the dataset's facts, which are believed; for a plain dataset all of it is read. Nothing is decoded.

    A frame or a video that is missing counts as such: decoding names it.

    Raises:
        DatasetInvalid: a column cannot be read.
    """
    if dataset.facts is not None and dataset.facts.fingerprint:
        return dataset.facts.fingerprint
    digest = hashlib.sha256()
    for key in sorted(dataset.features):
        feature = dataset.features[key]
        digest.update(f"{key}:{feature.dtype}:{feature.shape}\n".encode())
        if feature.dtype == "video":
            _hash_videos(dataset, key, digest)
        elif feature.dtype == "image":
            for episode in dataset.episodes:
                _hash_images(dataset, episode, key, digest)
        elif feature.dtype == "string":
            digest.update("\n".join(map(str, dataset.column(key).ravel())).encode())
        else:
            digest.update(dataset.column(key).tobytes())
    digest.update("\n".join(f"{index}:{task}" for index, task in sorted(dataset.metadata.tasks.items())).encode())
    return digest.hexdigest()


def _hash_images(dataset: Dataset, episode: Episode, key: str, digest: hashlib._Hash) -> None:
    done = 0
    while done < episode.length:
        try:
            for data in iterate_stored_images(dataset.root, episode, key, range(done, episode.length)):
                digest.update(data)
                done += 1
        except FrameCorrupt:
            digest.update(_MISSING)
            done += 1


def _hash_videos(dataset: Dataset, key: str, digest: hashlib._Hash) -> None:
    for path in dict.fromkeys(episode.videos[key].path for episode in dataset.episodes):
        if not path.is_file():
            digest.update(_MISSING)
            continue
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
