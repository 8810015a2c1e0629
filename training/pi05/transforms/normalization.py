"""Normalisation of states and actions, in openpi's two kinds and file format.

z-score: `(x - mean) / (std + 1e-6)`; quantile: `(x - q01) / (q99 - q01 + 1e-6) * 2 - 1`, without clipping. Statistics
are taken after the data transforms (delta actions included), so a policy undoes them in the reverse order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from policy_protocol.errors import ChunkwireError

__all__ = [
    "NormKind",
    "NormStats",
    "NormStatsInvalid",
    "norm_stats_hash",
    "normalize",
    "read_norm_stats",
    "unnormalize",
    "write_norm_stats",
]

NormKind = Literal["quantile", "zscore"]
_EPSILON = 1e-6


class NormStatsInvalid(ChunkwireError):
    """Norm stats that are missing, damaged or too narrow for the vector."""

    code = "norm_stats_invalid"


@dataclass(frozen=True)
class NormStats:
    """Per-dimension statistics of one vector, float64."""

    mean: Float[np.ndarray, "dim"]
    std: Float[np.ndarray, "dim"]
    q01: Float[np.ndarray, "dim"]
    """1st percentile."""
    q99: Float[np.ndarray, "dim"]
    """99th percentile."""

    def __post_init__(self) -> None:
        widths = {len(getattr(self, field.name)) for field in fields(self)}
        if len(widths) != 1:
            raise ValueError(f"mean, std, q01 and q99 have different lengths: {sorted(widths)}.")
        for field in fields(self):
            if not np.all(np.isfinite(getattr(self, field.name))):
                raise ValueError(f"{field.name} holds NaN or infinity.")

    @property
    def dimension(self) -> int:
        """Width of the vector."""
        return len(self.mean)


def normalize(x: Float[np.ndarray, "*shape"], stats: NormStats, kind: NormKind) -> Float[np.ndarray, "*shape"]:
    """Bring a vector (last axis) to the model's scale. The statistics may be wider than the vector.

    Raises:
        NormStatsInvalid: the statistics are narrower than the vector.
    """
    width = x.shape[-1]
    _check_width(width, stats)
    if kind == "zscore":
        return (x - stats.mean[:width]) / (stats.std[:width] + _EPSILON)
    q01, q99 = stats.q01[:width], stats.q99[:width]
    return (x - q01) / (q99 - q01 + _EPSILON) * 2.0 - 1.0


def unnormalize(x: Float[np.ndarray, "*shape"], stats: NormStats, kind: NormKind) -> Float[np.ndarray, "*shape"]:
    """The inverse of `normalize`. Dimensions beyond the statistics are taken as openpi's padding has them:
    mean 0 and standard deviation 1 (z-score), unchanged (quantile).
    """
    width = min(x.shape[-1], stats.dimension)
    head, tail = x[..., :width], x[..., width:]
    if kind == "zscore":
        head = head * (stats.std[:width] + _EPSILON) + stats.mean[:width]
        tail = tail * (1.0 + _EPSILON)
    else:
        q01, q99 = stats.q01[:width], stats.q99[:width]
        head = (head + 1.0) / 2.0 * (q99 - q01 + _EPSILON) + q01
    return np.concatenate([head, tail], axis=-1)


def _check_width(width: int, stats: NormStats) -> None:
    if stats.dimension < width:
        raise NormStatsInvalid(
            f"The norm stats have {stats.dimension} dimensions but the vector has {width}. "
            "Recompute them for this dataset: train stats DATASET."
        )


def read_norm_stats(path: str | os.PathLike[str]) -> dict[str, NormStats]:
    """Read openpi's `norm_stats.json`: `{"norm_stats": {"state": {…}, "actions": {…}}}`.

    Raises:
        NormStatsInvalid: the file is missing, is not such JSON, or holds NaN.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))["norm_stats"]
        return {name: _read_one(entry) for name, entry in raw.items()}
    except OSError as error:
        raise NormStatsInvalid(f"The norm stats {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NormStatsInvalid(f"{path} is not a norm stats file: {error}.") from error


def _read_one(entry: Mapping[str, object]) -> NormStats:
    def column(name: str) -> np.ndarray:
        # openpi writes null quantiles for z-score-only statistics; the mean stands in and is never used.
        absent = name in ("q01", "q99") and entry.get(name) is None
        return np.asarray(entry["mean" if absent else name], dtype=np.float64)

    return NormStats(*(column(field.name) for field in fields(NormStats)))


def write_norm_stats(path: str | os.PathLike[str], stats: Mapping[str, NormStats]) -> None:
    """Write openpi's `norm_stats.json`, creating its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(_as_json(stats), indent=2) + "\n", encoding="utf-8")


def norm_stats_hash(stats: Mapping[str, NormStats]) -> str:
    """Short content hash, for the spec and the records."""
    return hashlib.sha256(json.dumps(_as_json(stats), sort_keys=True).encode()).hexdigest()[:16]


def _as_json(stats: Mapping[str, NormStats]) -> dict[str, object]:
    columns = [field.name for field in fields(NormStats)]
    return {
        "norm_stats": {name: {key: getattr(entry, key).tolist() for key in columns} for name, entry in stats.items()}
    }
