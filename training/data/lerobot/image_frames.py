"""Decodes the frames of an image dataset: PNG (or JPEG) bytes in a parquet column."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from training.data.errors import FrameCorrupt
from training.data.lerobot.metadata import Episode

__all__ = ["iterate_images", "iterate_stored_images"]

_ROWS_IN_MEMORY = 64


def iterate_images(
    root: Path, episode: Episode, key: str, wanted: Sequence[int]
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Decode the frames numbered `wanted` (ascending, from the episode's beginning), one at a time.

    Raises:
        FrameCorrupt: a frame is missing or cannot be decoded; names the file, the episode and the frame.
    """
    for frame, data in zip(wanted, iterate_stored_images(root, episode, key, wanted), strict=True):
        try:
            with Image.open(io.BytesIO(data)) as image:
                yield np.asarray(image.convert("RGB"))
        except UnidentifiedImageError as error:  # its own words name an object in memory
            raise _corrupt(episode, key, frame, "its bytes are not those of an image") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise _corrupt(episode, key, frame, str(error)) from error


def iterate_stored_images(root: Path, episode: Episode, key: str, wanted: Sequence[int]) -> Iterator[bytes]:
    """The encoded bytes of the frames numbered `wanted`, streamed from the parquet file. Raises `FrameCorrupt`."""
    frames = iter(wanted)
    frame = next(frames, None)
    if frame is None:
        return
    for row, cell in _cells(episode, key, frame, wanted[-1]):
        if row == frame:
            yield _stored_bytes(root, episode, key, frame, cell)
            frame = next(frames, None)
    if frame is not None:
        raise _corrupt(episode, key, frame, "the file ends before it")


def _cells(episode: Episode, key: str, first: int, last: int) -> Iterator[tuple[int, Any]]:
    """(frame number, cell) from the row group of frame `first` on up to frame `last`."""
    first, last = first + episode.data_offset, last + episode.data_offset
    try:
        with pq.ParquetFile(episode.data_file, pre_buffer=False) as file:
            groups, row = _row_groups(file, first, last)
            for batch in file.iter_batches(_ROWS_IN_MEMORY, row_groups=groups, columns=[key]):
                if row + len(batch) > first:
                    for place, cell in enumerate(batch[0], start=row - episode.data_offset):
                        yield place, cell.as_py()
                row += len(batch)
                if row > last:
                    return
    except (OSError, pa.ArrowInvalid) as error:
        raise _corrupt(episode, key, first - episode.data_offset, str(error)) from error


def _row_groups(file: pq.ParquetFile, first: int, last: int) -> tuple[list[int], int]:
    """The row groups that hold rows `first` to `last`, and the first row of the first of them."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    stops = np.cumsum(sizes, dtype=np.int64)
    groups = [group for group, stop in enumerate(stops) if stop > first and stop - sizes[group] <= last]
    return groups, int(stops[groups[0]] - sizes[groups[0]]) if groups else 0


def _stored_bytes(root: Path, episode: Episode, key: str, frame: int, cell: Any) -> bytes:
    """LeRobot stores the bytes in the cell, or only the path of a file beside the data."""
    if cell is None:
        raise _corrupt(episode, key, frame, "the row is empty")
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    try:
        return (root / cell["path"]).read_bytes()
    except (OSError, TypeError) as error:
        raise _corrupt(episode, key, frame, f"it has no bytes and its path cannot be read ({error})") from error


def _corrupt(episode: Episode, key: str, frame: int, reason: str) -> FrameCorrupt:
    row = episode.start + frame
    return FrameCorrupt(
        f"Frame {frame} of episode {episode.index} (row {row}, camera {key!r}) in {episode.data_file} cannot be "
        f"decoded: {reason}. Convert or download the dataset again, or pass --skip-corrupt."
    )
