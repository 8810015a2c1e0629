"""The loader that this work grew from, rebuilt: a sample slices rows, and all of their images are decoded."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from training.data import Dataset

__all__ = ["DecodingLoader"]


class DecodingLoader:
    """Chunks of actions by slicing a table over the horizon, as huggingface's `datasets` decodes a slice.

    Of all images that a slice decodes only the first row's are used.
    """

    def __init__(self, dataset: Dataset, action_horizon: int) -> None:
        self._dataset, self._horizon = dataset, action_horizon
        files = dict.fromkeys(episode.data_file for episode in dataset.episodes)
        columns = [*dataset.cameras, "state", "actions"]
        self._table = pa.concat_tables([pq.read_table(file, columns=columns, memory_map=True) for file in files])
        self._last = np.repeat([part.stop - 1 for part in dataset.episodes], [p.length for p in dataset.episodes])

    def samples(
        self, rows: Int64[np.ndarray, "batch"]
    ) -> tuple[
        Mapping[str, UInt8[np.ndarray, "batch height width 3"]],
        Float32[np.ndarray, "batch state_dim"],
        Float32[np.ndarray, "batch action_horizon action_dim"],
    ]:
        """Images by camera, states and action chunks; past an episode's end its last action is repeated."""
        items = [self._item(int(row)) for row in rows]
        images = {key: np.stack([item[key][0] for item in items]) for key in self._dataset.cameras}
        return images, np.stack([item["state"][0] for item in items]), np.stack([item["actions"] for item in items])

    def _item(self, row: int) -> dict[str, np.ndarray]:
        stop = min(row + self._horizon, int(self._last[row]) + 1)
        columns = self._table.slice(row, stop - row).to_pydict()
        item = {key: np.array(columns[key], np.float32) for key in ("state", "actions")}
        for key in self._dataset.cameras:
            item[key] = np.stack([_decode(cell["bytes"]) for cell in columns[key]])
        short = self._horizon - (stop - row)
        item["actions"] = np.concatenate([item["actions"], np.repeat(item["actions"][-1:], short, axis=0)])
        return item


def _decode(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
