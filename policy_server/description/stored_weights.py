"""What weights on disk are, from their metadata alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from policy_protocol.errors import ChunkwireError
from policy_protocol.spec import PolicySpec
from training.pi05.checkpoint.pytorch import is_safetensors
from training.pi05.checkpoint.step_directory import CheckpointInvalid
from training.pi05.checkpoint.weights import stored_shapes
from training.pi05.model.lora import is_lora
from training.pi05.model.params import check_params, config_of_params

__all__ = ["StoredWeights", "stored_weights"]

_TORCH_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class StoredWeights:
    """Weights as they lie on disk."""

    format: Literal["orbax", "safetensors"]
    parameters: int
    """Numbers stored, LoRA's factors included."""
    dtypes: Mapping[str, int]
    """Type -> numbers stored in it."""
    bytes_on_disk: int
    """Compressed, as the files are."""
    lora: bool
    """Whether there are LoRA factors; `serve` adds them in."""
    mismatch: str = ""
    """Why they are not the spec's model; empty when they are, or when only reading them would tell."""


def stored_weights(step: Path, spec: PolicySpec) -> StoredWeights:
    """Describe the weights of a step directory.

    Raises:
        CheckpointInvalid: the metadata cannot be read.
    """
    if is_safetensors(step):
        return _safetensors(step)
    shapes = stored_shapes(step / "params")
    counts = Counter[str]()
    for leaf in shapes.values():
        counts[leaf.dtype.name] += math.prod(leaf.shape)
    size = sum(path.stat().st_size for path in (step / "params").rglob("*") if path.is_file())
    lora = any(map(is_lora, shapes))
    return StoredWeights("orbax", counts.total(), dict(counts), size, lora, _mismatch(shapes, spec, step))


def _mismatch(shapes: Mapping[str, Any], spec: PolicySpec, step: Path) -> str:
    """The checks that `serve` makes once it has read the weights."""
    try:
        model = config_of_params(shapes, spec.policy.action_horizon, spec.observation.prompt.max_tokens, "float32")
        if model.family != spec.policy.family:
            return f"It holds {model.family} weights but its spec says {spec.policy.family}."
        check_params(shapes, model, str(step / "params"))
    except ChunkwireError as error:
        return error.message
    return ""


def _safetensors(step: Path) -> StoredWeights:
    path, counts = step / "model.safetensors", Counter[str]()
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                part = file.get_slice(name)
                counts[_TORCH_TYPES.get(part.get_dtype(), part.get_dtype())] += math.prod(part.get_shape())
    except (SafetensorError, OSError) as error:
        raise CheckpointInvalid(f"The weights in {path} cannot be read; the file is damaged ({error}).") from error
    return StoredWeights("safetensors", counts.total(), dict(counts), path.stat().st_size, lora=False)
