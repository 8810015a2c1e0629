"""The metadata of a LeRobot dataset, one shape for v2.1 and v3.0: features, tasks, and where each episode lies.

v2.1 holds one parquet file and one mp4 per camera for each episode; v3.0 joins many episodes in a file and says in
`meta/episodes` where each begins. Both follow what `lerobot` 0.3.3 and 0.4.4 write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.errors import DatasetInvalid

__all__ = ["VERSIONS", "Episode", "Feature", "Metadata", "VideoSpan", "read_info"]

VERSIONS = ("v2.1", "v3.0")


@dataclass(frozen=True)
class Feature:
    """One column of a dataset, as `meta/info.json` declares it."""

    dtype: str
    """`image`, `video`, or the numpy name of the numbers, such as `float32`, `int64`, `bool`."""
    shape: tuple[int, ...]
    """Shape of one row; (height, width, 3) or (3, height, width) for a camera."""
    names: tuple[str, ...] | None = None
    """Names of the dimensions; None when the dataset has none."""

    @property
    def is_camera(self) -> bool:
        """Whether the rows are frames rather than numbers."""
        return self.dtype in ("image", "video")

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of a camera's frames in pixels."""
        channel_first = self.shape[0] in (1, 3) and self.shape[-1] not in (1, 3)
        height, width = self.shape[1:] if channel_first else self.shape[:2]
        return height, width


@dataclass(frozen=True)
class VideoSpan:
    """Where an episode lies in an mp4 file."""

    path: Path
    start: float
    """Seconds from the file's beginning to the episode's first frame."""


@dataclass(frozen=True)
class Episode:
    """One episode: rows `start` to `stop` of the dataset."""

    index: int
    start: int
    stop: int
    tasks: tuple[str, ...]
    data_file: Path
    data_offset: int
    """Rows of the data file that belong to earlier episodes."""
    videos: Mapping[str, VideoSpan]
    """By camera key; empty in a dataset with images."""

    @property
    def length(self) -> int:
        """Rows of the episode."""
        return self.stop - self.start


@dataclass(frozen=True)
class Metadata:
    """All that is known of a dataset without opening its data."""

    version: str
    fps: float
    """Rows per second."""
    robot_type: str
    features: Mapping[str, Feature]
    tasks: Mapping[int, str]
    """Task text by `task_index`."""
    episodes: tuple[Episode, ...]


def read_info(root: Path) -> dict[str, Any]:
    """The parsed `meta/info.json` of a supported dataset that holds frames.

    Raises:
        DatasetInvalid: no dataset, damaged, of another version, or empty.
    """
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DatasetInvalid(
            f"{root} is not a LeRobot dataset: it has no meta/info.json. "
            "Pass the folder that 'train convert' wrote or that holds data/ and meta/."
        )
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetInvalid(f"{path} is not JSON: {error}.") from error
    for key in ("codebase_version", "fps", "features", "data_path"):
        if key not in info:
            raise DatasetInvalid(f"{path} has no {key!r}: it is not the info of a LeRobot dataset.")
    if info["codebase_version"] not in VERSIONS:
        raise DatasetInvalid(
            f"{root} has codebase_version {info['codebase_version']!r}, but Chunkwire reads {' and '.join(VERSIONS)}. "
            "Convert it with the conversion scripts of the lerobot package."
        )
    if not info.get("total_frames"):
        raise DatasetInvalid(f"{root} holds no frames: record demonstrations and convert them first.")
    return info


def read_features(info: Mapping[str, Any]) -> dict[str, Feature]:
    """The features of a parsed `meta/info.json`, in its order."""
    return {
        key: Feature(part["dtype"], tuple(part["shape"]), _names(part.get("names")))
        for key, part in info["features"].items()
    }


def _names(names: object) -> tuple[str, ...] | None:
    if isinstance(names, Mapping):  # {"motors": [...]} in datasets of real robots
        names = next(iter(names.values()), None)
    return tuple(map(str, names)) if isinstance(names, list) else None
