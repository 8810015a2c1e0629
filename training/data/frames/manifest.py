"""What a finished frame cache says of itself: which dataset it is of, what is missing, and checksums of the rest."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json, to_json
from training.data.errors import FrameCacheUnusable

__all__ = ["DecodedEpisode", "Manifest", "check_content", "checksum", "read_manifest", "write_manifest"]


@dataclass(frozen=True)
class DecodedEpisode:
    """One episode's frames of one camera, as they lie in the cache."""

    start: int
    """Place of its first frame in the array."""
    stop: int
    checksum: int
    """CRC-32 of its frames."""
    corrupt: Mapping[str, str]
    """By place in the array: why that frame could not be decoded; it is black there."""


@dataclass(frozen=True)
class Manifest:
    """The `.json` beside a finished array."""

    fingerprint: str
    """Of the dataset that was decoded."""
    episodes: tuple[DecodedEpisode, ...]
    modified_ns: int
    """When the array was last changed, in nanoseconds; when it was changed since, its checksums are compared."""

    @property
    def corrupt(self) -> dict[int, str]:
        """Every frame that could not be decoded, by place."""
        return {int(place): reason for episode in self.episodes for place, reason in episode.corrupt.items()}


def checksum(frames: UInt8[np.ndarray, "frames height width 3"]) -> int:
    """CRC-32 of the frames' bytes."""
    return zlib.crc32(np.ascontiguousarray(frames).data) if len(frames) else 0


def check_content(path: Path, images: UInt8[np.ndarray, "frames height width 3"], manifest: Manifest) -> None:
    """Whether an array is what it was when it was built. Reads it only where the file was changed since.

    Raises:
        FrameCacheUnusable: an episode's checksum is wrong; names the file and the episode.
    """
    if path.stat().st_mtime_ns == manifest.modified_ns:
        return
    for number, episode in enumerate(manifest.episodes):
        if checksum(images[episode.start : episode.stop]) != episode.checksum:
            raise FrameCacheUnusable(
                f"The frame cache {path} was changed after it was built: episode {number} has another checksum. "
                "Remove it to build it again."
            )


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at `path`; None when there is none or it cannot be read."""
    try:
        return from_json(Manifest, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, SpecInvalid):
        return None


def write_manifest(path: Path, array: Path, fingerprint: str, episodes: Sequence[DecodedEpisode]) -> None:
    """Describe the finished `array` in `path`."""
    document: dict[str, Any] = to_json(Manifest(fingerprint, tuple(episodes), array.stat().st_mtime_ns))
    fresh = path.with_suffix(".json.new")
    fresh.write_text(json.dumps(document), encoding="utf-8")
    fresh.replace(path)
