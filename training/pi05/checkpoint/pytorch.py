"""PyTorch weights of Pi0 and Pi0.5 as LeRobot and openpi save them (`model.safetensors`), read without torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from training.pi05.checkpoint.pytorch_files import PYTORCH_FILE, PYTORCH_INDEX, is_safetensors
from training.pi05.checkpoint.pytorch_layout import Leaf, size_of, sizes_of
from training.pi05.checkpoint.pytorch_names import UNUSED, canonical, family_of, leaves
from training.pi05.checkpoint.step_directory import CheckpointInvalid
from training.pi05.listing import counted

__all__ = ["is_safetensors", "read_safetensors", "safetensors_leaves", "safetensors_shapes"]

_FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
_VISION_HEADS = 16
"""SigLIP So400m's, the only tower that LeRobot and openpi have. Neither names nor shapes tell it."""


def read_safetensors(
    path: Path, dtype: Any = None, *, vision_heads: int = _VISION_HEADS
) -> dict[str, Float[np.ndarray, "..."]]:
    """Read the weights as a flat map of host arrays under our tree's paths (`PaliGemma/llm/final_norm/scale`).

    The file is mapped into memory and read one tensor at a time: beside the result, one tensor is held.

    Args:
        dtype: cast floating-point leaves on load; None keeps what is in the file.
        vision_heads: attention heads of the vision tower.

    Raises:
        CheckpointInvalid: a file is damaged, or a tensor is missing, unexpected, misshapen or no float; names them.
    """
    return dict(safetensors_leaves(path, dtype=dtype, vision_heads=vision_heads))


def safetensors_shapes(path: Path, *, vision_heads: int = _VISION_HEADS) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and type of every leaf under our tree's paths, from the headers alone.

    Raises:
        CheckpointInvalid: as `read_safetensors`.
    """
    with _opened(path, vision_heads) as (sources, sizes):
        return {leaf.path: _shape(leaf, tensors, sizes) for leaf, tensors in sources}


def safetensors_leaves(
    path: Path, paths: Collection[str] | None = None, dtype: Any = None, *, vision_heads: int = _VISION_HEADS
) -> Iterator[tuple[str, Float[np.ndarray, "..."]]]:
    """As `read_safetensors`, one leaf after the other, and only those of `paths` when given."""
    with _opened(path, vision_heads) as (sources, sizes):
        for leaf, tensors in sources:
            if paths is None or leaf.path in paths:
                yield leaf.path, _read(leaf, tensors, sizes, dtype)


@dataclass(frozen=True)
class _Tensor:
    """One tensor of an open file, not read yet."""

    file: safe_open
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.name).get_shape())

    @property
    def kind(self) -> str:
        return self.file.get_slice(self.name).get_dtype()

    def read(self) -> Float[np.ndarray, "..."]:
        return self.file.get_tensor(self.name)


@contextmanager
def _opened(path: Path, vision_heads: int) -> Iterator[tuple[list[tuple[Leaf, list[_Tensor]]], dict[str, int]]]:
    """Every leaf with the tensors that it is made of, all of them checked, and the size of every axis."""
    with ExitStack() as stack:
        opened = _open(path, stack)
        tensors = {name: opened[original] for name, original in canonical(opened).items()}
        table = leaves(family_of(tensors))
        depths = {leaf.layers: _depth(leaf.layers, tensors) for leaf in table if leaf.layers}
        named = [(leaf, leaf.names(depths.get(leaf.layers, 1))) for leaf in table]
        _check_names(named, tensors, len(opened), path)
        sizes = _check_tensors(named, tensors, vision_heads, path)
        yield [(leaf, [tensors[name] for name in names]) for leaf, names in named], sizes


def _open(path: Path, stack: ExitStack) -> dict[str, _Tensor]:
    tensors: dict[str, _Tensor] = {}
    for file in _files(path):
        try:
            opened = stack.enter_context(safe_open(file, framework="numpy"))
        except (SafetensorError, OSError) as error:
            raise CheckpointInvalid(
                f"The weights in {file} cannot be read; the file is damaged or incomplete ({error}). Copy it again."
            ) from error
        tensors |= {name: _Tensor(opened, name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    return tensors


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / PYTORCH_FILE).is_file():
        return [path / PYTORCH_FILE]
    if (path / PYTORCH_INDEX).is_file():
        return _shards(path / PYTORCH_INDEX)
    raise CheckpointInvalid(
        f"{path} holds no {PYTORCH_FILE}. Pass the file, or the directory that LeRobot or openpi saved it in "
        "(LeRobot's training calls it pretrained_model)."
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [index.parent / Path(name).name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointInvalid(f"{index} is no index of weights ({error!r}). Copy the checkpoint again.") from error
    if missing := [path.name for path in paths if not path.is_file()]:
        raise CheckpointInvalid(f"{index} lists shards that are not there: {', '.join(missing)}. Copy them beside it.")
    return paths


def _depth(start: str, names: Mapping[str, Any]) -> int:
    """How many layers there are: counted, so that neither a gap nor an absurd number is taken for a depth."""
    found = {name.removeprefix(start).partition(".")[0] for name in names if name.startswith(start)}
    return max(1, len(found))


def _check_names(
    named: Sequence[tuple[Leaf, list[str]]], tensors: Mapping[str, _Tensor], held: int, path: Path
) -> None:
    expected = {name for _, names in named for name in names}
    unexpected = sorted(tensors[name].name for name in tensors.keys() - expected - UNUSED.keys())
    lines = [
        *counted("missing", sorted(expected - tensors.keys())),
        *counted("unexpected", unexpected),
    ]
    if len(tensors) < held:
        lines.append(f"{held - len(tensors)} of its names differ only in a wrapper's prefix.")
    if any("lora" in name.lower() for name in unexpected):
        lines.append("Merge LoRA adapters into the weights first (peft's merge_and_unload).")
    _complain(lines, path)


def _check_tensors(
    named: Sequence[tuple[Leaf, list[str]]], tensors: Mapping[str, _Tensor], vision_heads: int, path: Path
) -> dict[str, int]:
    """Compare types, ranks and shapes; the size of every axis."""
    pairs = [(leaf, name, tensors[name]) for leaf, names in named for name in names]
    types = [f"{name} is {tensor.kind}" for _, name, tensor in pairs if tensor.kind not in _FLOATS]
    ranks = [
        f"{name} is {tensor.shape}, expected {len(leaf.theirs)} axes"
        for leaf, name, tensor in pairs
        if len(tensor.shape) != len(leaf.theirs)
    ]
    _complain([*counted("of a type that is no float", types), *counted("of the wrong shape", ranks)], path)
    sizes = sizes_of([(leaf, tensor.shape) for leaf, _, tensor in pairs], vision_heads)
    expected = {leaf: tuple(size_of(axis, sizes) for axis in leaf.theirs) for leaf, _ in named}
    shapes = [
        f"{name} is {tensor.shape}, expected {expected[leaf]}"
        for leaf, name, tensor in pairs
        if tensor.shape != expected[leaf]
    ]
    _complain(counted("of the wrong shape", shapes), path)
    return sizes


def _complain(lines: Sequence[str], path: Path) -> None:
    if lines:
        raise CheckpointInvalid(
            f"The tensors in {path} are not those of a Pi0 or Pi0.5 model as LeRobot or openpi saves it. "
            + " ".join(lines)
        )


def _shape(leaf: Leaf, tensors: Sequence[_Tensor], sizes: Mapping[str, int]) -> jax.ShapeDtypeStruct:
    """The leaf's shape, and the widest type of its tensors."""
    shape = (*leaf.stack(len(tensors)), *(size_of(axis, sizes) for axis in leaf.ours))
    return jax.ShapeDtypeStruct(shape, np.result_type(*(_FLOATS[tensor.kind] for tensor in tensors)))


def _read(leaf: Leaf, tensors: Sequence[_Tensor], sizes: Mapping[str, int], dtype: Any) -> Float[np.ndarray, "..."]:
    """One leaf, each tensor put in its place of the stack."""
    made = _shape(leaf, tensors, sizes)
    target = made.dtype if dtype is None else np.dtype(dtype)
    if not leaf.stack(len(tensors)):
        return leaf.convert(tensors[0].read(), sizes).astype(target, order="C", copy=False)
    stacked = np.empty((len(tensors), *(size_of(axis, sizes) for axis in leaf.ours)), target)
    for place, tensor in zip(stacked, tensors, strict=True):
        place[...] = leaf.convert(tensor.read(), sizes)
    return stacked.reshape(made.shape)
