"""Reads where each episode of a LeRobot dataset lies, from the files of v2.1 or of v3.0."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.errors import DatasetInvalid
from training.data.lerobot.metadata import Episode, Metadata, VideoSpan, read_features, read_info

__all__ = ["read_metadata"]


def read_metadata(root: Path) -> Metadata:
    """The metadata of the dataset at `root`, v2.1 or v3.0.

    Raises:
        DatasetInvalid: the folder is no dataset, of an unsupported version, empty or without one of its files.
    """
    info = read_info(root)
    old = info["codebase_version"] == "v2.1"
    try:
        tasks = _tasks_v21(root) if old else _tasks_v30(root)
        episodes = tuple(_episodes_v21(root, info) if old else _episodes_v30(root, info))
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise DatasetInvalid(f"The metadata of {root} cannot be read: {error}.") from error
    if not episodes:
        raise DatasetInvalid(f"{root} holds no frames: it lists no episodes.")
    robot = str(info.get("robot_type") or "")
    return Metadata(info["codebase_version"], info["fps"], robot, read_features(info), tasks, episodes)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def _video_keys(info: Mapping[str, Any]) -> list[str]:
    return [key for key, part in info["features"].items() if part["dtype"] == "video"]


def _tasks_v21(root: Path) -> dict[int, str]:
    return {line["task_index"]: line["task"] for line in _json_lines(root / "meta" / "tasks.jsonl")}


def _tasks_v30(root: Path) -> dict[int, str]:
    table = pq.read_table(root / "meta" / "tasks.parquet")
    # The texts are the index of a pandas frame, so the column's name depends on who wrote it.
    text = next(name for name in table.column_names if name != "task_index")
    return dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))


def _episodes_v21(root: Path, info: Mapping[str, Any]) -> Iterator[Episode]:
    start = 0
    for line in sorted(_json_lines(root / "meta" / "episodes.jsonl"), key=lambda line: line["episode_index"]):
        index = line["episode_index"]
        place = {"episode_index": index, "episode_chunk": index // info["chunks_size"]}
        videos = {
            key: VideoSpan(root / info["video_path"].format(video_key=key, **place), 0.0) for key in _video_keys(info)
        }
        data_file = root / info["data_path"].format(**place)
        yield Episode(index, start, start + line["length"], tuple(line["tasks"]), data_file, 0, videos)
        start += line["length"]


def _episodes_v30(root: Path, info: Mapping[str, Any]) -> Iterator[Episode]:
    start, used = 0, dict[Path, int]()
    for row in _episode_rows(root, _video_keys(info)):
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        data_file = root / info["data_path"].format(**place)
        videos = {key: _span(root, info, row, key) for key in _video_keys(info)}
        offset, stop = used.get(data_file, 0), start + row["length"]
        yield Episode(row["episode_index"], start, stop, tuple(row["tasks"]), data_file, offset, videos)
        start, used[data_file] = stop, offset + row["length"]


def _span(root: Path, info: Mapping[str, Any], row: Mapping[str, Any], key: str) -> VideoSpan:
    place = {"chunk_index": row[f"videos/{key}/chunk_index"], "file_index": row[f"videos/{key}/file_index"]}
    path = root / info["video_path"].format(video_key=key, **place)
    return VideoSpan(path, row[f"videos/{key}/from_timestamp"])


def _episode_rows(root: Path, video_keys: list[str]) -> list[dict[str, Any]]:
    """The needed columns of `meta/episodes`: its statistics are a hundred more and stay on disk."""
    columns = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
    for key in video_keys:
        columns += [f"videos/{key}/{part}" for part in ("chunk_index", "file_index", "from_timestamp")]
    rows: list[dict[str, Any]] = []
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        rows += pq.read_table(path, columns=columns).to_pylist()
    return sorted(rows, key=lambda row: row["episode_index"])
