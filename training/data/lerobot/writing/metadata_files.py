"""Writes the `meta/` folder of a LeRobot dataset, v2.1 or v3.0, as lerobot 0.3.3 and 0.4.4 do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.lerobot.metadata import Feature
from training.data.lerobot.writing.parquet_files import DATA_FILE_MB, DATA_PATHS, FILES_IN_CHUNK, Place
from training.data.lerobot.writing.statistics import Statistics
from training.data.lerobot.writing.video_files import VIDEO_FILE_MB, VIDEO_PATHS, video_info

__all__ = ["EpisodeRecord", "write_episodes", "write_info", "write_statistics", "write_tasks"]

_V21_STATISTICS = ("min", "max", "mean", "std", "count")


@dataclass(frozen=True)
class EpisodeRecord:
    """What the metadata says of one written episode."""

    index: int
    task: str
    start: int
    """First row in the dataset."""
    length: int
    data_place: Place
    video_places: Mapping[str, tuple[Place, float, float]]
    """By camera: file, and the seconds in it at which the episode starts and stops."""
    statistics: Mapping[str, Statistics]
    """By feature."""


def write_info(
    root: Path,
    version: str,
    *,
    robot_type: str,
    fps: float,
    features: Mapping[str, Feature],
    episodes: Sequence[EpisodeRecord],
) -> None:
    """Write `meta/info.json`."""
    videos = [key for key, feature in features.items() if feature.dtype == "video"]
    totals: dict[str, Any] = {
        "total_episodes": len(episodes),
        "total_frames": sum(episode.length for episode in episodes),
        "total_tasks": len({episode.task for episode in episodes}),
    }
    if version == "v2.1":
        totals["total_videos"] = len(videos) * len(episodes)
        totals["total_chunks"] = -(-len(episodes) // FILES_IN_CHUNK)
    sizes = {"data_files_size_in_mb": DATA_FILE_MB, "video_files_size_in_mb": VIDEO_FILE_MB}
    info = {
        "codebase_version": version,
        "robot_type": robot_type,
        **totals,
        "chunks_size": FILES_IN_CHUNK,
        **(sizes if version == "v3.0" else {}),
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": DATA_PATHS[version],
        "video_path": VIDEO_PATHS[version] if videos else None,
        "features": {key: _declared(feature, fps) for key, feature in features.items()},
    }
    _write_json(root / "meta" / "info.json", info)


def write_tasks(root: Path, version: str, tasks: Sequence[str]) -> None:
    """Write the task texts in the order of their index: `tasks.jsonl` or `tasks.parquet`."""
    if version == "v2.1":
        lines = ({"task_index": index, "task": task} for index, task in enumerate(tasks))
        return _write_lines(root / "meta" / "tasks.jsonl", lines)
    names = ["task_index", "__index_level_0__"]
    arrays = [pa.array(range(len(tasks)), pa.int64()), pa.array(tasks, pa.large_string())]
    table = pa.Table.from_arrays(arrays, names=names).replace_schema_metadata({"pandas": json.dumps(_TASKS_INDEX)})
    pq.write_table(table, root / "meta" / "tasks.parquet")
    return None


def write_episodes(root: Path, version: str, episodes: Sequence[EpisodeRecord]) -> None:
    """Write where each episode is, with its statistics: two `.jsonl` files or `meta/episodes/…parquet`."""
    if version == "v3.0":
        path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([_row(episode) for episode in episodes]), path)
        return
    lengths = ({"episode_index": part.index, "tasks": [part.task], "length": part.length} for part in episodes)
    _write_lines(root / "meta" / "episodes.jsonl", lengths)
    statistics = (
        {"episode_index": part.index, "stats": {key: _listed(item, "v2.1") for key, item in part.statistics.items()}}
        for part in episodes
    )
    _write_lines(root / "meta" / "episodes_stats.jsonl", statistics)


def write_statistics(root: Path, version: str, statistics: Mapping[str, Statistics]) -> None:
    """Write `meta/stats.json` over all episodes; v2.1 has none (lerobot sums up the episodes')."""
    if version == "v3.0":
        _write_json(root / "meta" / "stats.json", {key: _listed(item, version) for key, item in statistics.items()})


_TASKS_INDEX = {
    "index_columns": ["__index_level_0__"],
    "column_indexes": [
        {
            "name": None,
            "field_name": None,
            "pandas_type": "unicode",
            "numpy_type": "str",
            "metadata": {"encoding": "UTF-8"},
        }
    ],
    "columns": [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {
            "name": None,
            "field_name": "__index_level_0__",
            "pandas_type": "object",
            "numpy_type": "str",
            "metadata": None,
        },
    ],
    "attributes": {},
    "creator": {"library": "pyarrow", "version": pa.__version__},
    "pandas_version": "3.1.1",
}
"""Makes pandas read the task texts back as the index of the frame, which is where lerobot looks for them."""


def _declared(feature: Feature, fps: float) -> dict[str, Any]:
    names = None if feature.names is None else list(feature.names)
    declared: dict[str, Any] = {"dtype": feature.dtype, "shape": list(feature.shape), "names": names}
    return {**declared, "info": video_info(feature, fps)} if feature.dtype == "video" else declared


def _row(episode: EpisodeRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "episode_index": episode.index,
        "tasks": [episode.task],
        "length": episode.length,
        "data/chunk_index": episode.data_place[0],
        "data/file_index": episode.data_place[1],
        "dataset_from_index": episode.start,
        "dataset_to_index": episode.start + episode.length,
    }
    for key, (place, start, stop) in episode.video_places.items():
        parts = {"chunk_index": place[0], "file_index": place[1], "from_timestamp": start, "to_timestamp": stop}
        row |= {f"videos/{key}/{name}": value for name, value in parts.items()}
    for key, statistics in episode.statistics.items():
        row |= {f"stats/{key}/{name}": value for name, value in _listed(statistics, "v3.0").items()}
    return {**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def _listed(statistics: Statistics, version: str) -> dict[str, Any]:
    names = _V21_STATISTICS if version == "v2.1" else statistics
    return {name: statistics[name].tolist() for name in names}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False), encoding="utf-8")


def _write_lines(path: Path, lines: Iterable[object]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
