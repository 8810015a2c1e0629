"""Reads a LeRobot dataset, v2.1 or v3.0, with images or video, by pyarrow and PyAV alone.

Numbers come from parquet columns without touching an image; frames are decoded one at a time when asked for. (A
loader that slices rows decodes every image of the horizon: four times the work for twice the horizon.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from training.data.errors import DatasetInvalid
from training.data.lerobot.columns import iterate_column, read_column
from training.data.lerobot.episodes import read_metadata
from training.data.lerobot.facts import DatasetFacts, read_facts
from training.data.lerobot.image_frames import iterate_images
from training.data.lerobot.metadata import Episode, Feature, Metadata
from training.data.lerobot.video_frames import iterate_video

__all__ = ["FRAME_RENDERED", "Dataset"]

FRAME_RENDERED = "frame_rendered"
"""Column that says which rows hold a frame of their own; the other rows repeat the frame before."""


class Dataset:
    """A LeRobot dataset on disk.

    Args:
        root: the folder that holds `meta/` and `data/`.

    Raises:
        DatasetInvalid: no dataset, an unsupported version, no frames, or damaged metadata.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.metadata: Metadata = read_metadata(self.root)
        self.facts: DatasetFacts | None = read_facts(self.root)
        """The simulation facts of `train convert`; None for a plain LeRobot dataset."""

    @property
    def features(self) -> Mapping[str, Feature]:
        """Every column and camera by its key."""
        return self.metadata.features

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """Every episode with its rows, in order."""
        return self.metadata.episodes

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the cameras."""
        return tuple(key for key, feature in self.features.items() if feature.is_camera)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task text, each once."""
        return tuple(dict.fromkeys(self.metadata.tasks.values()))

    @property
    def rows(self) -> int:
        """Number of rows over all episodes."""
        return self.episodes[-1].stop

    def column(self, key: str) -> Shaped[np.ndarray, "rows *shape"]:
        """A column of numbers in its declared dtype and shape; a scalar has the shape (rows, 1).

        Raises:
            DatasetInvalid: no such column (the error lists what there is), a camera, or a damaged file.
        """
        return read_column(self.episodes, key, self._numbers(key))

    def column_blocks(self, key: str) -> Iterator[tuple[int, Shaped[np.ndarray, "rows *shape"]]]:
        """A column in blocks of bounded size, each with its first row. Errors as `column`."""
        return iterate_column(self.episodes, key, self._numbers(key))

    def feature(self, key: str) -> Feature:
        """The feature of a key. Raises `DatasetInvalid` listing the keys that there are."""
        if key not in self.features:
            raise DatasetInvalid(f"{self.root} has no {key!r}. It has: {', '.join(self.features)}.")
        return self.features[key]

    def _numbers(self, key: str) -> Feature:
        feature = self.feature(key)
        if feature.is_camera:
            raise DatasetInvalid(f"{key!r} is a camera: its frames are decoded one by one, not read as a column.")
        return feature

    @cached_property
    def task_indices(self) -> Int64[np.ndarray, "rows"]:
        """Index of each row's task."""
        return self.column("task_index")[:, 0]

    def prompts(self, rows: Int64[np.ndarray, "batch"]) -> tuple[str, ...]:
        """Task text of each of the given rows. Raises `DatasetInvalid` for a task that `meta/` does not list."""
        tasks = self.metadata.tasks
        try:
            return tuple(tasks[index] for index in self.task_indices[rows].tolist())
        except KeyError as error:
            raise DatasetInvalid(f"{self.root} uses task {error} but its metadata lists no such task.") from error

    @cached_property
    def rendered(self) -> Bool[np.ndarray, "rows"]:
        """Which rows hold a frame of their own: all, unless the dataset was recorded with a frame stride."""
        if FRAME_RENDERED not in self.features:
            return np.ones(self.rows, dtype=bool)
        rendered = self.column(FRAME_RENDERED)[:, 0]
        for episode in self.episodes:
            if not rendered[episode.start]:
                raise DatasetInvalid(f"Episode {episode.index} of {self.root} begins without a rendered frame.")
        return rendered

    def frames(
        self, key: str, episode: int, wanted: Sequence[int] | None = None
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Decode an episode's frames in order, one at a time.

        Args:
            key: a camera.
            episode: position in `episodes`.
            wanted: numbers of the frames from the episode's beginning, ascending; all when None.

        Raises:
            FrameCorrupt: names the file, the episode and the frame.
            DatasetInvalid: the key is no camera (the error lists the cameras).
        """
        if key not in self.cameras:
            raise DatasetInvalid(f"{self.root} has no camera {key!r}. It has: {', '.join(self.cameras) or 'none'}.")
        part = self.episodes[episode]
        numbers = range(part.length) if wanted is None else wanted
        if self.features[key].dtype == "video":
            return iterate_video(part, key, self.metadata.fps, numbers)
        return iterate_images(self.root, part, key, numbers)

    def frame(self, key: str, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Decode the frame of one row; for many rows build a `FrameCache`. Errors as `frames`."""
        if not 0 <= row < self.rows:
            raise IndexError(f"Row {row} is out of range: {self.root} has the rows 0 to {self.rows - 1}.")
        stops = [part.stop for part in self.episodes]
        episode = int(np.searchsorted(stops, row, side="right"))
        return next(self.frames(key, episode, [row - self.episodes[episode].start]))
