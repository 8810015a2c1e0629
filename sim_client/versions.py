"""Versions of what decides the numbers: the same list for demonstrations and for evaluations."""

from __future__ import annotations

import importlib.metadata
import platform

__all__ = ["installed_versions"]

_PACKAGES = ("chunkwire", "mani_skill", "mplib", "numpy", "sapien", "torch")


def installed_versions() -> dict[str, str]:
    """Package -> version, Python's first; read without importing anything."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
