"""Where PyTorch weights lie: a `.safetensors` file, or a directory that holds one, whole or in shards."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PYTORCH_FILE", "PYTORCH_INDEX", "is_safetensors"]

PYTORCH_FILE = "model.safetensors"
PYTORCH_INDEX = "model.safetensors.index.json"
"""Lists the shards beside it."""


def is_safetensors(path: Path) -> bool:
    """Whether a path is a `.safetensors` file, or a directory that holds `model.safetensors`, whole or in shards."""
    if path.is_dir():
        return (path / PYTORCH_FILE).is_file() or (path / PYTORCH_INDEX).is_file()
    return path.suffix == ".safetensors" and path.is_file()
