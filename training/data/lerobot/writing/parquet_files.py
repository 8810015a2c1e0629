"""Writes the rows of a dataset into parquet files, with the schema that huggingface's `datasets` puts there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.data.lerobot.metadata import Feature
from training.data.lerobot.writing.encoded_frames import EncodedFrames

__all__ = ["DATA_FILE_MB", "DATA_PATHS", "FILES_IN_CHUNK", "ParquetFiles", "Place", "next_place"]

FILES_IN_CHUNK = 1000
DATA_FILE_MB = 100
DATA_PATHS = {
    "v2.1": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "v3.0": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
_FRAME_NAMES = {"v2.1": "frame_{:06d}.png", "v3.0": "frame-{:06d}.png"}
# `datasets` renamed its list type between the releases that lerobot 0.3.3 and 0.4.4 were built on.
_LIST_TYPES = {"v2.1": "Sequence", "v3.0": "List"}
_FRAME = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

Place = tuple[int, int]
"""(chunk, file) of a v3.0 file; in v2.1 the file is the episode."""


def next_place(place: Place) -> Place:
    """The place of the file after this one."""
    chunk, file = place
    return (chunk + 1, 0) if file + 1 == FILES_IN_CHUNK else (chunk, file + 1)


class ParquetFiles:
    """The data files of a dataset: one for each episode (v2.1), or a new one every 100 MB (v3.0).

    Each episode is a row group, so that reading one episode's frames reads nothing else.
    """

    def __init__(self, root: Path, version: str, features: Mapping[str, Feature]) -> None:
        self.root = root
        self.version = version
        self.features = {key: feature for key, feature in features.items() if feature.dtype != "video"}
        self.place: Place = (0, 0)
        self._schema = _schema(self.features, version)
        self._writer: pq.ParquetWriter | None = None
        self._path = root

    def add(self, episode: int, columns: Mapping[str, np.ndarray], frames: Mapping[str, EncodedFrames]) -> Place:
        """Write one episode and return where it is. `frames` holds the cameras that are stored as images."""
        self._make_room(episode)
        arrays = [self._array(key, feature, columns, frames) for key, feature in self.features.items()]
        assert self._writer is not None
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        return self.place

    def close(self) -> None:
        """Finish the open file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _make_room(self, episode: int) -> None:
        if self.version == "v2.1":
            self.close()
            self.place = divmod(episode, FILES_IN_CHUNK)
        elif self._writer is not None and self._path.stat().st_size >= DATA_FILE_MB << 20:
            self.close()
            self.place = next_place(self.place)
        if self._writer is None:
            chunk, file = self.place
            names = {"episode_chunk": chunk, "chunk_index": chunk, "episode_index": episode, "file_index": file}
            self._path = self.root / DATA_PATHS[self.version].format(**names)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, self._schema)

    def _array(
        self, key: str, feature: Feature, columns: Mapping[str, np.ndarray], frames: Mapping[str, EncodedFrames]
    ) -> pa.Array:
        if feature.is_camera:
            names = [_FRAME_NAMES[self.version].format(frame) for frame in range(len(frames[key]))]
            return pa.StructArray.from_arrays(
                [pa.array(list(frames[key].pngs), pa.binary()), pa.array(names)], fields=list(_FRAME)
            )
        values = np.ascontiguousarray(columns[key], dtype=feature.dtype)
        if feature.shape == (1,):
            return pa.array(values.ravel())
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=_column_type(feature))


def _column_type(feature: Feature) -> pa.DataType:
    if feature.is_camera:
        return _FRAME
    number = pa.from_numpy_dtype(np.dtype(feature.dtype))
    return number if feature.shape == (1,) else pa.list_(pa.field("element", number), feature.shape[0])


def _schema(features: Mapping[str, Feature], version: str) -> pa.Schema:
    described = {key: _described(feature, version) for key, feature in features.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": described}})}
    return pa.schema([(key, _column_type(feature)) for key, feature in features.items()], metadata=metadata)


def _described(feature: Feature, version: str) -> dict[str, Any]:
    if feature.is_camera:
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,):
        return value
    return {"feature": value, "length": feature.shape[0], "_type": _LIST_TYPES[version]}
