"""Files by path or URL: what is remote is downloaded once into a cache and never half there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from policy_protocol.errors import ChunkwireError

__all__ = ["DownloadFailed", "cache_directory", "cached_file"]


class DownloadFailed(ChunkwireError):
    """A remote file could not be fetched."""

    code = "download_failed"


def cache_directory() -> Path:
    """`$CHUNKWIRE_CACHE`, else `chunkwire` in `$XDG_CACHE_HOME`, else `~/.cache/chunkwire`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CHUNKWIRE_CACHE") or Path(base) / "chunkwire")


def cached_file(source: str) -> Path:
    """The local path of `source`: itself, or the cached download of a URL (`gs://`, `https://`, `file://`, …).

    Raises:
        DownloadFailed: the URL cannot be fetched; says where to put the file by hand.
    """
    if "://" not in source:
        return Path(source)
    target = cache_directory() / hashlib.sha256(source.encode()).hexdigest()[:16] / source.rsplit("/", 1)[-1]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(source, target)
    return target


def _download(source: str, target: Path) -> None:
    import fsspec  # here, because most runs download nothing

    options = {"token": "anon"} if source.startswith("gs://") else {}
    handle, partial = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out, fsspec.open(source, "rb", **options) as remote:
            while block := remote.read(1 << 20):
                out.write(block)
        os.replace(partial, target)
    except Exception as error:  # fsspec raises whatever its backend raises
        Path(partial).unlink(missing_ok=True)
        raise DownloadFailed(
            f"{source} could not be downloaded ({type(error).__name__}: {error}). "
            f"Fetch it on another machine and put it at {target}, or pass a local path."
        ) from error
