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
    q01: Float[np.ndarray, "dim"] | None
    """1st percentile; None in statistics that were taken for z-scores alone."""
    q99: Float[np.ndarray, "dim"] | None
    """99th percentile; None where `q01` is."""

    def __post_init__(self) -> None:
        if (self.q01 is None) != (self.q99 is None):
            raise ValueError("q01 and q99 must both be there, or neither")
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        columns = {name: column for name, column in columns.items() if column is not None}
        for name, column in columns.items():
            if np.ndim(column) != 1:
                raise ValueError(f"{name} must be a list of numbers, not of shape {np.shape(column)}")
            if not np.all(np.isfinite(column)):
                raise ValueError(f"{name} holds NaN or infinity")
        if len({len(column) for column in columns.values()}) != 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
            raise ValueError(f"the columns have different lengths ({lengths})")

    @property
    def dimension(self) -> int:
        """Width of the vector."""
        return len(self.mean)

    @property
    def quantiles(self) -> tuple[Float[np.ndarray, "dim"], Float[np.ndarray, "dim"]]:
        """`q01` and `q99`. Raises `NormStatsInvalid` when there are none."""
        if self.q01 is None or self.q99 is None:
            raise NormStatsInvalid("The norm stats have no quantiles (q01, q99).")
        return self.q01, self.q99


def normalize(x: Float[np.ndarray, "*shape"], stats: NormStats, kind: NormKind) -> Float[np.ndarray, "*shape"]:
    """Bring a vector (last axis) to the model's scale. The statistics may be wider than the vector.

    Raises:
        NormStatsInvalid: the statistics are narrower than the vector, or have no quantiles where the kind wants them.
    """
    width = x.shape[-1]
    _check_width(width, stats)
    if kind == "zscore":
        return (x - stats.mean[:width]) / (stats.std[:width] + _EPSILON)
    q01, q99 = (quantile[:width] for quantile in stats.quantiles)
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
        q01, q99 = (quantile[:width] for quantile in stats.quantiles)
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
    def column(name: str) -> np.ndarray | None:
        if name in ("q01", "q99") and entry.get(name) is None:  # so openpi writes statistics for z-scores alone
            return None
        return np.asarray(entry[name], dtype=np.float64)

    return NormStats(*(column(field.name) for field in fields(NormStats)))


def write_norm_stats(path: str | os.PathLike[str], stats: Mapping[str, NormStats]) -> None:
    """Write openpi's `norm_stats.json`, creating its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(_as_json(stats), indent=2) + "\n", encoding="utf-8")


def norm_stats_hash(stats: Mapping[str, NormStats]) -> str:
    """Short content hash, for the spec and the records."""
    return hashlib.sha256(json.dumps(_as_json(stats), sort_keys=True).encode()).hexdigest()[:16]


def _as_json(stats: Mapping[str, NormStats]) -> dict[str, object]:
    return {"norm_stats": {name: _entry_as_json(entry) for name, entry in stats.items()}}


def _entry_as_json(entry: NormStats) -> dict[str, object]:
    columns = {field.name: getattr(entry, field.name) for field in fields(entry)}
    return {name: None if column is None else column.tolist() for name, column in columns.items()}
