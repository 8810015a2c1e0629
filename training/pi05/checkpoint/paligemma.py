"""PaliGemma weights as big_vision publishes them: an `.npz` of flat names, `params/llm/…` and `params/img/…`."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from training.pi05.checkpoint.step_directory import CheckpointInvalid

__all__ = ["paligemma_shapes", "read_paligemma"]

_PREFIX = "params/"
_TREE = "PaliGemma/"
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def paligemma_shapes(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and type of every leaf under our names (`PaliGemma/llm/…`), from the headers alone.

    Raises:
        CheckpointInvalid: the file is no `.npz`, or names other things than a PaliGemma's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {info.filename.removesuffix(".npy"): _header(archive, info) for info in archive.infolist()}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointInvalid(f"{path} cannot be read as an .npz file ({error}). Download it again.") from error
    others = sorted(name for name in headers if not name.startswith((f"{_PREFIX}llm/", f"{_PREFIX}img/")))
    if others or not headers:
        found = ", ".join(others[:8]) or "nothing"
        raise CheckpointInvalid(
            f"{path} is no PaliGemma of big_vision, whose arrays are named params/llm/… and params/img/…: "
            f"it holds {found}."
        )
    return {_TREE + name.removeprefix(_PREFIX): header for name, header in headers.items()}


def read_paligemma(path: Path, paths: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Those leaves, one after the other, so that no more than one need be in memory."""
    with np.load(path, allow_pickle=False) as arrays:
        for leaf in paths:
            array = arrays[_PREFIX + leaf.removeprefix(_TREE)]
            yield leaf, array.view(_BFLOAT16) if array.dtype == "V2" else array


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> jax.ShapeDtypeStruct:
    with archive.open(info) as stream:
        read: Any = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(stream)]
        shape, _, dtype = read(stream)
    return jax.ShapeDtypeStruct(shape, _BFLOAT16 if dtype == "V2" else dtype)  # numpy has no name for bfloat16
