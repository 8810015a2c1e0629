"""Compiled programs kept between starts: jax's executables in one folder, and in `traced/` what Python made of them.

Whoever can write this folder can run code in every process that uses it: it is made for its owner alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.stages import Compiled, Lowered

from training.pi05.download import cache_directory

__all__ = ["compile_kept", "is_keeping", "stop_keeping", "traced_folder", "use_compile_cache"]

log = logging.getLogger(__name__)

_MOST_BYTES = 8 * 2**30
"""Of all programs together; some hundred of the full-size model."""
_PROBE_BYTES = 2**20
"""Written and deleted to know that the folder takes more."""
_NOTHING_IS_THIS_LARGE = 2**62
"""The least size of a program that is kept when none is."""


def use_compile_cache(directory: Path | None = None) -> None:
    """Keep what jax compiles in `directory`, or in the user's cache. Call before anything is compiled.

    A folder that cannot be written is only read, with a warning.
    """
    folder = directory or cache_directory() / "compiled"
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
    except OSError as error:
        stop_keeping(error, folder)
    else:
        _delete_oldest(folder, _MOST_BYTES)
    if folder.is_dir():
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def traced_folder() -> Path | None:
    """Where programs are kept as they were traced; None when this process keeps none."""
    directory = jax.config.jax_compilation_cache_dir
    return None if not directory or "://" in directory else Path(directory) / "traced"


def is_keeping() -> bool:
    """Whether the folder takes what is new; otherwise it is only read."""
    return int(jax.config.jax_persistent_cache_min_entry_size_bytes) < _NOTHING_IS_THIS_LARGE


def stop_keeping(error: OSError, folder: Path) -> None:
    """From here on the folder is only read; says so once."""
    if not is_keeping():
        return
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", _NOTHING_IS_THIS_LARGE)
    log.warning(
        "compiled programs cannot be kept in %s (%s): this start goes on, and the next one compiles again. "
        "Free some space, or name a folder that can be written with --compile-cache or CHUNKWIRE_CACHE",
        folder,
        error.strerror or error,
    )


def compile_kept(lowered: Lowered, name: str) -> Compiled:
    """As `lowered.compile()`; an executable that is kept but damaged is compiled and written anew.

    Args:
        name: of the jitted function, which no other program has.
    """
    folder = jax.config.jax_compilation_cache_dir
    if not folder or "://" in folder:
        return lowered.compile()
    try:
        with _errors_raised():
            compiled = lowered.compile()
    except Exception as error:
        deleted = [_deleted(path) for path in _executables(folder, name)]
        if isinstance(error, OSError):
            stop_keeping(error, Path(folder))
        elif any(deleted):
            log.warning("a compiled program in %s was damaged (%s); it is compiled anew", folder, type(error).__name__)
        else:
            raise
        return lowered.compile()
    for path in _executables(folder, name):
        with contextlib.suppress(OSError):
            os.utime(path)  # what is used is deleted last
    return compiled


@contextlib.contextmanager
def _errors_raised() -> Iterator[None]:
    """jax never deletes what it cannot read, and half of what a full disk took stays: it must say so."""
    before = jax.config.jax_raise_persistent_cache_errors
    jax.config.update("jax_raise_persistent_cache_errors", True)
    try:
        yield
    finally:
        jax.config.update("jax_raise_persistent_cache_errors", before)


def _executables(folder: str, name: str) -> list[Path]:
    return list(Path(folder).glob(f"jit_{name}-*-cache"))


def _deleted(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _delete_oldest(folder: Path, most_bytes: int) -> None:
    """What was used longest ago goes first, until the rest has at most `most_bytes`."""
    kept = []
    for path in [*folder.glob("*-cache"), *folder.glob("traced/*")]:
        with contextlib.suppress(OSError):  # another server deletes, too
            status = path.stat()
            kept.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= most_bytes:
            return
        _deleted(path)
        total -= size
