"""Compiled programs kept between starts: jax's executables in one folder, and in `traced/` what Python made of them.

Whoever can write this folder can run code in every process that uses it: it is made for its owner alone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.stages import Compiled, Lowered

from training.pi05.download import cache_directory, users_own

__all__ = ["compile_kept", "is_keeping", "stop_keeping", "takes_no_more", "traced_folder", "use_compile_cache"]

log = logging.getLogger(__name__)

_MOST_BYTES = 8 * 2**30
"""Of all programs together; some hundred of the full-size model."""
_PROBE_BYTES = 2**20
"""Written and deleted to know that the folder takes more."""
_NOTHING_IS_THIS_LARGE = 2**62
"""The least size of a program that is kept when none is."""
_TAKES_NO_MORE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def use_compile_cache(directory: Path | None = None) -> None:
    """Keep what jax compiles in `directory`, or in the user's cache. Call before anything is compiled.

    A folder that cannot be written is only read, with a warning. In one that all may write each user has one of their
    own, see `users_own`.
    """
    folder = cache_directory() / "compiled" if directory is None else users_own(directory)
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
        _warn_of_other_writers(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _warn_of_other_writers(folder: Path) -> None:
    """Whoever writes the folder runs code here: says who else can."""
    status = folder.stat()
    if status.st_uid not in (0, os.getuid()):
        who, remedy = f"belongs to another user (uid {status.st_uid})", "Name a folder"
    elif status.st_mode & _OTHERS_WRITE:
        who, remedy = "can be written by other users", f"Run chmod go-w {folder}, or name a folder"
    else:
        return
    log.warning(
        "the folder of compiled programs %s %s: who can write it can run code in this process. "
        "%s of your own with --compile-cache or CHUNKWIRE_CACHE",
        folder,
        who,
        remedy,
    )


def traced_folder() -> Path | None:
    """Where programs are kept as they were traced; None when this process keeps none."""
    directory = jax.config.jax_compilation_cache_dir
    return None if not directory or "://" in directory else Path(directory) / "traced"


def is_keeping() -> bool:
    """Whether the folder takes what is new; otherwise it is only read."""
    return int(jax.config.jax_persistent_cache_min_entry_size_bytes) < _NOTHING_IS_THIS_LARGE


def takes_no_more(error: Exception) -> TypeGuard[OSError]:
    """Whether nothing else could be written either: the disk is full, or the folder may not be written."""
    return isinstance(error, OSError) and error.errno in _TAKES_NO_MORE


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
    """As `lowered.compile()`, whatever is wrong with the folder: the next start keeps what could not be read.

    Args:
        name: of the jitted function, which no other program has.

    Raises:
        Exception: what the compiler says without any folder, as `lowered.compile()` does.
    """
    folder = jax.config.jax_compilation_cache_dir
    if not folder or "://" in folder:
        return lowered.compile()
    before = _executables(folder, name)
    try:
        with _errors_raised():
            compiled = lowered.compile()
    except Exception as error:
        return _compiled_anew(lowered, name, Path(folder), before, error)
    for path in _executables(folder, name):
        with contextlib.suppress(OSError):
            os.utime(path)  # what is used is deleted last
    return compiled


def _compiled_anew(lowered: Lowered, name: str, folder: Path, before: list[Path], error: Exception) -> Compiled:
    """Without what is in the folder, after this error; what could not be read is deleted once it compiled."""
    found = _executables(str(folder), name)
    if takes_no_more(error):
        stop_keeping(error, folder)
    with _cache_in(None):
        compiled = lowered.compile()
    if takes_no_more(error):
        for half in set(found) - set(before):
            _deleted(half)
    elif found:
        for path in found:
            _deleted(path)
        log.warning("a compiled program in %s could not be read (%s); it is compiled anew", folder, _kind(error))
    else:
        log.warning(
            "a compiled program could not be kept in %s (%s); the next start compiles it again", folder, _kind(error)
        )
    return compiled


def _kind(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


@contextlib.contextmanager
def _cache_in(directory: str | None) -> Iterator[None]:
    """jax keeps programs there meanwhile, or nowhere."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", directory)
    reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        reset_cache()


@contextlib.contextmanager
def _errors_raised() -> Iterator[None]:
    """jax never replaces what it cannot read, and half of what a full disk took stays: it must say so."""
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
