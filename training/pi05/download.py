"""Files and folders by path or URL: what is remote is downloaded once into a cache and never half there.

What a URL gave is kept for good: nothing asks the server whether it changed. To download it anew, delete its folder in
`cache_directory()`; the `.complete` file beside each folder names its URL.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from policy_protocol.errors import ChunkwireError
from training.pi05.download_progress import DownloadProgress
from training.pi05.remote_files import RemoteFiles, is_public

__all__ = ["DownloadFailed", "cache_directory", "cached_directory", "cached_file", "users_own"]


class DownloadFailed(ChunkwireError):
    """A remote file could not be fetched."""

    code = "download_failed"


def cache_directory() -> Path:
    """`$CHUNKWIRE_CACHE`, else `chunkwire` in `$XDG_CACHE_HOME`, else `~/.cache/chunkwire`, as `users_own` has it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return users_own(Path(os.environ.get("CHUNKWIRE_CACHE") or Path(base) / "chunkwire"))


def users_own(folder: Path) -> Path:
    """`folder`, or the user's own one inside if it is shared on purpose: sticky, all write, as `/tmp` and the volume of
    the images. What one user wrote there another could neither replace nor, with a strict umask, read."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        mode = 0
    shared = mode & stat.S_ISVTX and mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder / f"user-{os.getuid()}" if shared else folder


def cached_file(source: str) -> Path:
    """The local path of `source`: itself, or the cached download of a URL (`gs://`, `https://`, `file://`, …).

    Raises:
        DownloadFailed: the URL cannot be fetched; says where to put the file by hand.
    """
    if "://" not in source:
        return Path(source)
    target = _target(source)
    if not target.exists():
        by_hand = f"Fetch it on another machine and put it at {target}, or pass a local path."
        _download(source, target, by_hand, folder=False)
    return target


def cached_directory(source: str, without: Collection[str] = ()) -> Path:
    """The local path of a folder: itself, or the cached download of a URL.

    A download that was cut off goes on with the files that are missing. The folder is handed out only when every file
    has the size that the server told; a marker beside it records that, and later calls need no network.

    Args:
        source: path or URL (`gs://`, `hf://`, `https://` of a listing, `file://`, …).
        without: names directly below the folder that are left out.

    Raises:
        DownloadFailed: nothing is there, it cannot be fetched or does not fit; says where to put it by hand.
    """
    if "://" not in source:
        return Path(source)
    target = _target(source)
    marker = target.with_name(target.name + ".complete")
    if not _is_complete(target, marker, without):
        by_hand = (
            "What is complete is kept: run again to go on. Or fetch the folder on another machine and pass its local "
            f"path, or put it at {target} and create the empty file {marker}."
        )
        sizes = _download(source, target, by_hand, folder=True, without=without)
        _write_marker(marker, {"source": source, "without": sorted(without), "files": sizes})
    return target


def _target(source: str) -> Path:
    url = source.rstrip("/")  # with or without the slash it is one folder
    return cache_directory() / hashlib.sha256(url.encode()).hexdigest()[:16] / url.rsplit("/", 1)[-1]


def _is_complete(target: Path, marker: Path, without: Collection[str]) -> bool:
    if not (target.is_dir() and marker.exists()):
        return False
    text = marker.read_text(encoding="utf-8")
    if not text.strip():
        return True  # put there by hand
    record = json.loads(text)
    missing = [name for name, size in record["files"].items() if _size(target / name) != size]
    return not missing and set(record["without"]) <= set(without)


def _write_marker(marker: Path, record: Mapping[str, Any]) -> None:
    partial = marker.with_name(f".{marker.name}.{os.getpid()}")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, marker)


def _download(
    source: str, target: Path, by_hand: str, *, folder: bool, without: Collection[str] = ()
) -> dict[str, int]:
    """Fetch what is not there yet; the size of every file afterwards."""
    _make_folder(target.parent)
    try:
        remote = RemoteFiles(source, folder=folder)
        wanted = {name: size for name, size in remote.sizes.items() if name.split("/")[0] not in without}
        if not wanted:
            raise FileNotFoundError("there is nothing at this address")
        if folder and "" in wanted:
            raise NotADirectoryError("it is a file, not a folder")
        missing = {name: size for name, size in wanted.items() if size is None or _size(target / name) != size}
        known = sum(size or 0 for size in missing.values())
        _check_space(target.parent, known)
        with DownloadProgress(source, len(missing), known) as progress:
            remote.fetch({name: target / name for name in missing}, progress.advance)
        return {name: (target / name).stat().st_size for name in wanted}
    except Exception as error:  # fsspec raises whatever its backend raises
        raise DownloadFailed(
            f"{source} could not be downloaded ({type(error).__name__}: {error}). {_hint(source, error)}{by_hand}"
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadFailed(
            f"The download cache {folder} cannot be made ({error.strerror}). CHUNKWIRE_CACHE names another folder."
        ) from error


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"it has {decimal(needed)} but {folder} has {decimal(free)} free; CHUNKWIRE_CACHE names another disk"
        )


_CREDENTIALS = {
    "gs": "it is read with the Google credentials of this user",
    "hf": "it is read with the token in HF_TOKEN",
    "http": "it is read without credentials",
    "https": "it is read without credentials",
}


def _hint(source: str, error: Exception) -> str:
    protocol = source.partition("://")[0]
    if isinstance(error, ImportError) and protocol == "hf":
        return "Install what reads the Hugging Face Hub: pip install huggingface_hub. "
    if not _was_refused(error) or protocol not in _CREDENTIALS:
        return ""
    if is_public(source):
        return "Access was refused, as it also is where a public bucket holds nothing: check the address. "
    return f"Access was refused: {_CREDENTIALS[protocol]}. "


def _was_refused(error: Exception) -> bool:
    """By the server; an error that names a file is of this machine's disk."""
    if isinstance(error, PermissionError):
        return error.filename is None
    causes = (error, error.__cause__)  # fsspec calls a refused page one that is missing
    return bool({getattr(cause, "status", None) or getattr(cause, "code", None) for cause in causes} & {401, 403})
