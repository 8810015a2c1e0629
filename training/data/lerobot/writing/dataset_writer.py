"""Writes a LeRobot dataset, v3.0 or v2.1, with images or video, so that the `lerobot` package opens it.

The dataset grows in a hidden folder beside its destination and is renamed when complete: whatever carries the
dataset's name is whole.

Read back row by row by the real package: v2.1 by lerobot 0.3.3, v3.0 by lerobot 0.4.4. Numbers, tasks, images and
action chunks are equal bit for bit, video frames are those that `Dataset` decodes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from jaxtyping import Shaped, UInt8

from training.data.errors import DatasetInvalid, OutputExists
from training.data.lerobot.metadata import VERSIONS, Feature
from training.data.lerobot.writing.encoded_frames import EncodedFrames, encode_frames
from training.data.lerobot.writing.metadata_files import (
    EpisodeRecord,
    write_episodes,
    write_info,
    write_statistics,
    write_tasks,
)
from training.data.lerobot.writing.parquet_files import ParquetFiles
from training.data.lerobot.writing.statistics import ColourHistogram, Statistics, number_statistics
from training.data.lerobot.writing.video_files import VideoFiles

__all__ = ["DatasetFormat", "DatasetWriter", "check_output"]

DatasetFormat = Literal["v2.1", "v3.0"]
"""LeRobot's `codebase_version`."""

_BOOKKEEPING = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
"""The columns that LeRobot adds to every dataset; `timestamp` is in seconds since the episode's beginning."""


class DatasetWriter:
    """Writes episodes one by one; use as a context manager and `commit()` at the end.

    Args:
        out: the dataset's folder.
        version: `v3.0` or `v2.1`.
        fps: rows per second.
        robot_type: for `meta/info.json`.
        features: cameras (dtype `image` or `video`, shape (height, width, 3)) and number columns (shape (dim,)).
        overwrite: replace the dataset that is there, once the new one is complete.

    Raises:
        OutputExists: `out` exists without `overwrite`, or is something other than a dataset.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        version: DatasetFormat = "v3.0",
        fps: float,
        robot_type: str,
        features: Mapping[str, Feature],
        overwrite: bool = False,
    ) -> None:
        if version not in VERSIONS:
            raise DatasetInvalid(f"Unknown format {version!r}. Choose one of: {', '.join(VERSIONS)} (--format).")
        self.out = Path(out)
        check_output(self.out, overwrite)
        self.root = self.out.parent / f".{self.out.name}.partial"
        """Where the files are until `commit`."""
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "meta").mkdir(parents=True)
        self.version, self.fps, self.robot_type = version, fps, robot_type
        self.features = {**features, **_BOOKKEEPING}
        self.histograms = {key: ColourHistogram() for key, feature in features.items() if feature.is_camera}
        """The colours of each camera so far."""
        self._data = ParquetFiles(self.root, version, self.features)
        videos = {key: feature for key, feature in features.items() if feature.dtype == "video"}
        self._videos = {key: VideoFiles(self.root, version, key, feature, fps) for key, feature in videos.items()}
        self._columns: dict[str, list[np.ndarray]] = {}
        self._tasks: dict[str, int] = {}
        self._episodes: list[EpisodeRecord] = []

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.root.exists():
            self._close_files()
            shutil.rmtree(self.root)

    def add_episode(
        self,
        columns: Mapping[str, Shaped[np.ndarray, "frames dim"]],
        frames: Mapping[str, UInt8[np.ndarray, "frames height width 3"] | EncodedFrames],
        task: str,
    ) -> None:
        """Append one episode; cameras that are stored as images may be encoded already (`encode_frames`).

        Raises:
            DatasetInvalid: a key is missing or too much, or a shape or length disagrees with the features.
        """
        length = self._check(columns, frames)
        record_columns = {**columns, **self._bookkeeping(length, task)}
        stored = {key: _encoded(part) for key, part in frames.items() if key not in self._videos}
        data_place = self._data.add(len(self._episodes), record_columns, stored)
        video_places = {key: video.add(len(self._episodes), frames[key]) for key, video in self._videos.items()}
        start = int(record_columns["index"][0, 0])
        colours = {key: stored[key].colours if key in stored else _colours(part) for key, part in frames.items()}
        statistics = self._count(record_columns, colours)
        self._episodes.append(
            EpisodeRecord(len(self._episodes), task, start, length, data_place, video_places, statistics)
        )

    def write_metadata(self) -> None:
        """Finish the data files and write `meta/`: then `root` is a readable dataset, still under its hidden name.

        Raises:
            DatasetInvalid: no episode was added.
        """
        if not self._episodes:
            raise DatasetInvalid(f"Nothing was written to {self.out}: a dataset needs at least one episode.")
        self._close_files()
        write_info(
            self.root,
            self.version,
            robot_type=self.robot_type,
            fps=self.fps,
            features=self.features,
            episodes=self._episodes,
        )
        write_tasks(self.root, self.version, list(self._tasks))
        write_episodes(self.root, self.version, self._episodes)
        write_statistics(self.root, self.version, self._statistics())

    def commit(self) -> Path:
        """Rename the finished dataset to its name, replacing the old one; returns the folder."""
        retired = self.out.parent / f".{self.out.name}.replaced"
        shutil.rmtree(retired, ignore_errors=True)
        if self.out.exists():
            self.out.rename(retired)
        self.root.rename(self.out)
        shutil.rmtree(retired, ignore_errors=True)
        return self.out

    def _close_files(self) -> None:
        for files in (self._data, *self._videos.values()):
            files.close()

    def _bookkeeping(self, length: int, task: str) -> dict[str, np.ndarray]:
        start = self._episodes[-1].start + self._episodes[-1].length if self._episodes else 0
        frame = np.arange(length, dtype=np.int64)[:, None]
        return {
            "timestamp": (frame / self.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full_like(frame, len(self._episodes)),
            "index": frame + start,
            "task_index": np.full_like(frame, self._tasks.setdefault(task, len(self._tasks))),
        }

    def _count(
        self, columns: Mapping[str, np.ndarray], colours: Mapping[str, ColourHistogram]
    ) -> dict[str, Statistics]:
        """The episode's statistics in the order of the features; what they are made of is kept for the whole."""
        statistics: dict[str, Statistics] = {}
        for key, feature in self.features.items():
            if feature.is_camera:
                self.histograms[key] += colours[key]
                statistics[key] = colours[key].statistics()
            else:
                self._columns.setdefault(key, []).append(columns[key])
                statistics[key] = number_statistics(columns[key])
        return statistics

    def _statistics(self) -> dict[str, Statistics]:
        return {
            key: self.histograms[key].statistics()
            if feature.is_camera
            else number_statistics(np.concatenate(self._columns[key]))
            for key, feature in self.features.items()
        }

    def _check(self, columns: Mapping[str, np.ndarray], frames: Mapping[str, np.ndarray | EncodedFrames]) -> int:
        given, episode = {**columns, **frames}, len(self._episodes)
        wanted = {key: feature for key, feature in self.features.items() if key not in _BOOKKEEPING}
        if set(given) != set(wanted):
            raise DatasetInvalid(f"Episode {episode} has the keys {sorted(given)}, but the dataset {sorted(wanted)}.")
        lengths = {key: len(value) for key, value in given.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise DatasetInvalid(f"Episode {episode} has columns of different or no length: {lengths}.")
        for key, feature in wanted.items():
            if given[key].shape[1:] != feature.shape:
                raise DatasetInvalid(
                    f"Episode {episode} has {key!r} of shape {given[key].shape[1:]}, but the dataset {feature.shape}."
                )
        return next(iter(lengths.values()))


def _encoded(frames: np.ndarray | EncodedFrames) -> EncodedFrames:
    return frames if isinstance(frames, EncodedFrames) else encode_frames(frames)


def _colours(frames: np.ndarray) -> ColourHistogram:
    colours = ColourHistogram()
    colours.add(frames)
    return colours


def check_output(out: Path, overwrite: bool) -> None:
    """Whether a dataset may be written to `out`. Raises `OutputExists`."""
    if not out.exists():
        return
    if not overwrite:
        raise OutputExists(f"{out} exists already. Pass --overwrite to replace it, or choose another folder.")
    if not (out / "meta" / "info.json").is_file():
        raise OutputExists(
            f"{out} exists and is not a dataset, so --overwrite does not remove it. Choose another folder."
        )
