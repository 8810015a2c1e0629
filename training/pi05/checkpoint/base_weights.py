"""Weights to start from, of whatever form: a step directory, its `params/`, PyTorch's, PaliGemma's, by path or URL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

from training.pi05.checkpoint.paligemma import paligemma_shapes, read_paligemma
from training.pi05.checkpoint.pytorch import is_safetensors, safetensors_leaves, safetensors_shapes
from training.pi05.checkpoint.step_directory import CheckpointInvalid, find_step, steps_in
from training.pi05.checkpoint.weights import read_leaves, stored_shapes
from training.pi05.download import cached_directory, cached_file
from training.pi05.placement import Shardings

__all__ = ["BaseWeights", "open_base_weights"]

_Read: TypeAlias = Callable[[Collection[str], Any, Shardings], dict[str, Array]]


@dataclass(frozen=True)
class BaseWeights:
    """Weights that are found but not yet on the device."""

    source: str
    """As the user named them."""
    path: Path
    """Where they lie on this machine."""
    kind: str
    """`checkpoint`, `PyTorch` or `PaliGemma`."""
    shapes: Mapping[str, jax.ShapeDtypeStruct]
    """Every leaf of them, under our names."""
    read: _Read
    """Leaves by their paths, floating-point ones cast to a type, straight to where the shardings say.
    Raises `CheckpointInvalid` when they are damaged."""


def open_base_weights(source: str, *, vision_heads: int) -> BaseWeights:
    """Find weights by path or URL; a URL is downloaded into the cache.

    Args:
        source: a step directory, its `params`, a `model.safetensors` or the folder that holds one, a PaliGemma `.npz`.
        vision_heads: attention heads of the vision tower, which PyTorch's tensors do not tell.

    Raises:
        CheckpointInvalid: nothing is there, or it holds no weights in a form that is known.
        DownloadFailed: the URL cannot be fetched.
    """
    path = _local(source)
    if path.suffix == ".npz":
        return _one_by_one(source, path, "PaliGemma", paligemma_shapes(path), partial(read_paligemma, path))
    if is_safetensors(path):
        shapes = safetensors_shapes(path, vision_heads=vision_heads)
        leaves = partial(safetensors_leaves, path, vision_heads=vision_heads)
        return _one_by_one(source, path, "PyTorch", shapes, leaves)
    params = _params_directory(source, path)

    def read(paths: Collection[str], dtype: Any, sharding: Shardings) -> dict[str, Array]:
        return read_leaves(params, paths, dtype, sharding)

    return BaseWeights(source, params, "checkpoint", stored_shapes(params), read)


def _local(source: str) -> Path:
    if "://" not in source:
        path = Path(source)
    elif source.endswith((".npz", ".safetensors")):
        path = cached_file(source)
    else:
        path = cached_directory(source, without=["train_state"])
    if not path.exists():
        raise CheckpointInvalid(f"There are no weights at {source}. {_FORMS}")
    return path


_FORMS = (
    "--init takes a step directory, its params/, a model.safetensors or the folder that holds one, "
    "a PaliGemma .npz, or the URL of any of these."
)


def _params_directory(source: str, path: Path) -> Path:
    if (path / "params").is_dir():
        return path / "params"
    if (path / "_METADATA").exists() or (path / "manifest.ocdbt").exists():
        return path
    if steps_in(path):
        find_step(path)  # raises, and offers the run's steps
    raise CheckpointInvalid(f"{source} holds no weights. {_FORMS}")


def _one_by_one(
    source: str,
    path: Path,
    kind: str,
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    leaves: Callable[[Collection[str]], Iterable[tuple[str, np.ndarray]]],
) -> BaseWeights:
    def read(paths: Collection[str], dtype: Any, sharding: Shardings) -> dict[str, Array]:
        return {name: _placed(leaf.astype(dtype), sharding(name, leaf.shape)) for name, leaf in leaves(paths)}

    return BaseWeights(source, path, kind, shapes, read)


def _placed(leaf: np.ndarray, sharding: Sharding) -> Array:
    """On the devices of this process; `device_put` would compare the leaf with every other process's."""
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])
