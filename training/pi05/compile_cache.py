"""Compiled programs kept between starts."""

from __future__ import annotations

from pathlib import Path

import jax

from training.pi05.download import cache_directory

__all__ = ["use_compile_cache"]


def use_compile_cache(directory: Path | None = None) -> None:
    """Keep what jax compiles in `directory`, or in the user's cache. Call before anything is compiled."""
    jax.config.update("jax_compilation_cache_dir", str(directory or cache_directory() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
