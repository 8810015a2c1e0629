"""PaliGemma weights as big_vision publishes them: an `.npz` of flat names, `params/llm/…` and `params/img/…`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
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
_HEADERS: Mapping[tuple[int, int], Callable[[Any], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def paligemma_shapes(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and type of every leaf under our names (`PaliGemma/llm/…`), from the headers alone.

    Raises:
        CheckpointInvalid: the file is no `.npz`, or names other things than a PaliGemma's.
    """
    with _damage_told(path), zipfile.ZipFile(path) as archive:
        headers = {info.filename.removesuffix(".npy"): _header(archive, info) for info in archive.infolist()}
    others = sorted(name for name in headers if not name.startswith((f"{_PREFIX}llm/", f"{_PREFIX}img/")))
    if others or not headers:
        found = ", ".join(others[:8]) or "nothing"
        raise CheckpointInvalid(
            f"{path} is no PaliGemma of big_vision, whose arrays are named params/llm/… and params/img/…: "
            f"it holds {found}."
        )
    return {_TREE + name.removeprefix(_PREFIX): header for name, header in headers.items()}


def read_paligemma(path: Path, paths: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Those leaves, one after the other, so that no more than one need be in memory.

    Raises:
        CheckpointInvalid: the file is damaged.
    """
    with _damage_told(path), np.load(path, allow_pickle=False) as arrays:
        for leaf in paths:
            array = arrays[_PREFIX + leaf.removeprefix(_TREE)]
            yield leaf, array.view(_BFLOAT16) if array.dtype == "V2" else array


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointInvalid(f"{path} cannot be read as an .npz file ({error}). Download it again.") from error


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> jax.ShapeDtypeStruct:
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{info.filename} is of numpy's format {version[0]}.{version[1]}, which is not known")
        shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds Python objects instead of numbers")
    return jax.ShapeDtypeStruct(shape, _BFLOAT16 if dtype == "V2" else dtype)  # numpy has no name for bfloat16
