"""Reads number columns of parquet files as arrays, whole or in blocks; image columns stay on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from training.data.errors import DatasetInvalid
from training.data.lerobot.metadata import Episode, Feature

__all__ = ["iterate_column", "read_column"]

_ROWS_IN_BLOCK = 1 << 16


def read_column(episodes: Sequence[Episode], key: str, feature: Feature) -> Shaped[np.ndarray, "rows *shape"]:
    """All rows of a number column, in dataset order and in the feature's own dtype and shape.

    Raises:
        DatasetInvalid: a file is missing, damaged, or has another number of rows than its episodes.
    """
    return np.concatenate([block for _, block in iterate_column(episodes, key, feature)])


def iterate_column(
    episodes: Sequence[Episode], key: str, feature: Feature
) -> Iterator[tuple[int, Shaped[np.ndarray, "rows *shape"]]]:
    """A number column in blocks of at most 65,536 rows, each with its first row. Errors as `read_column`."""
    expected: dict[Path, int] = {}
    for episode in episodes:
        expected[episode.data_file] = max(expected.get(episode.data_file, 0), episode.data_offset + episode.length)
    first = 0
    for path, rows in expected.items():
        for block in _read_file(path, key, feature, rows):
            yield first, block
            first += len(block)


def _read_file(path: Path, key: str, feature: Feature, rows: int) -> Iterator[np.ndarray]:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # a buffer would hold every row group
            if key not in file.schema_arrow.names:
                raise DatasetInvalid(f"The column {key!r} of {path} cannot be read: the file has no such column.")
            _check_rows(path, file.metadata.num_rows, rows)
            for batch in file.iter_batches(_ROWS_IN_BLOCK, columns=[key]):
                yield _as_array(batch.column(0), path, key, feature)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetInvalid(f"The column {key!r} of {path} cannot be read: {error}.") from error


def _check_rows(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise DatasetInvalid(
            f"{path} has {found} rows but its episodes in meta/ add up to {expected}. The dataset was cut off "
            "or edited by hand: convert or download it again."
        )


def _as_array(column: pa.Array, path: Path, key: str, feature: Feature) -> np.ndarray:
    if column.null_count:
        raise DatasetInvalid(f"The column {key!r} of {path} has {column.null_count} empty rows.")
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
