"""Reads number columns of parquet files as arrays; image columns stay on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from training.data.errors import DatasetInvalid
from training.data.lerobot.metadata import Episode, Feature

__all__ = ["read_column"]


def read_column(episodes: Sequence[Episode], key: str, feature: Feature) -> Shaped[np.ndarray, "rows *shape"]:
    """All rows of a number column, in dataset order and in the feature's own dtype and shape.

    Raises:
        DatasetInvalid: a file is missing, damaged, or has another number of rows than its episodes.
    """
    expected: dict[Path, int] = {}
    for episode in episodes:
        expected[episode.data_file] = max(expected.get(episode.data_file, 0), episode.data_offset + episode.length)
    parts = [_read_file(path, key, feature, rows) for path, rows in expected.items()]
    return np.concatenate(parts)


def _read_file(path: Path, key: str, feature: Feature, rows: int) -> np.ndarray:
    try:
        column = pq.read_table(path, columns=[key])[key].combine_chunks()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise DatasetInvalid(f"The column {key!r} of {path} cannot be read: {error}.") from error
    if len(column) != rows:
        raise DatasetInvalid(
            f"{path} has {len(column)} rows but its episodes in meta/ add up to {rows}. The dataset was cut off "
            "or edited by hand: convert or download it again."
        )
    if column.null_count:
        raise DatasetInvalid(f"The column {key!r} of {path} has {column.null_count} empty rows.")
    return _as_array(column, path, key, feature)


def _as_array(column: pa.Array, path: Path, key: str, feature: Feature) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ExtensionArray):  # huggingface's Array2D … Array5D
        column = column.storage
    rows = len(column)
    while pa.types.is_nested(column.type):
        column = column.flatten()
    numbers = column.to_numpy(zero_copy_only=False)
    if feature.dtype == "string":
        return numbers.reshape(rows, *feature.shape)
    if numbers.size != rows * int(np.prod(feature.shape)):
        raise DatasetInvalid(
            f"The column {key!r} of {path} has {numbers.size} numbers in {rows} rows, but meta/info.json declares "
            f"the shape {list(feature.shape)}."
        )
    return numbers.astype(feature.dtype, copy=False).reshape(rows, *feature.shape)
