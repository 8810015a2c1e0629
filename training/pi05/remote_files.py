"""Files behind a URL, listed and fetched through fsspec."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

__all__ = ["RemoteFiles", "SizeMismatch", "is_public"]

_PUBLIC_BUCKETS = ("openpi-assets", "big_vision", "vertex-model-garden-paligemma-us")
"""Read without an account; any other bucket takes the user's own Google credentials."""
_PARALLEL_FILES = 8


class SizeMismatch(OSError):
    """A file arrived with another number of bytes than its listing says."""


class _Cancelled(Exception):
    """Another file failed, so this one need not arrive."""


def is_public(url: str) -> bool:
    """Whether it lies in a bucket that is read without an account."""
    return url.startswith(tuple(f"gs://{bucket}/" for bucket in _PUBLIC_BUCKETS))


class RemoteFiles:
    """What a URL names, a file or a folder.

    Attributes:
        sizes: bytes of each file by its path below the URL (`params/_METADATA`; empty for the file that the URL itself
            names); None where the server does not say.

    Raises:
        Exception: whatever the backend raises for a protocol, a server or a path that it cannot read.
    """

    def __init__(self, url: str, *, folder: bool) -> None:
        from fsspec.core import url_to_fs  # here, because most runs download nothing

        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs tracebacks of what it raises as well
        self._files, root = url_to_fs(url, **({"token": "anon"} if is_public(url) else {}))
        self._names: dict[str, str] = {}
        self.sizes: dict[str, int | None] = {}
        found = self._files.find(root, detail=True) if folder else {root: self._files.info(root)}
        for name, info in found.items():
            if folder and _is_folder(name, info):
                continue
            size = info.get("size")
            relative = _relative(name, root)
            self._names[relative] = name
            self.sizes[relative] = self._files.info(name).get("size") if size is None else size

    def fetch(self, targets: dict[str, Path], advance: Callable[[int], None]) -> None:
        """Write files side by side, each whole or not at all; `advance` counts their bytes as they arrive.

        Raises:
            SizeMismatch: a file came short.
            Exception: whatever the backend raises; what is complete by then stays.
        """
        stop = threading.Event()
        pool = ThreadPoolExecutor(_PARALLEL_FILES)
        try:
            jobs = [pool.submit(self._fetch, name, target, advance, stop) for name, target in targets.items()]
            done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            for job in done:
                job.result()
        finally:
            stop.set()  # also on Ctrl-C: what is under way ends at its next block
            pool.shutdown(cancel_futures=True)

    def _fetch(self, relative: str, target: Path, advance: Callable[[int], None], stop: threading.Event) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        os.close(handle)
        try:
            count = _counter(advance, stop)
            self._files.get_file(self._names[relative], partial, callback=count)
            arrived, expected = os.path.getsize(partial), self.sizes[relative]
            if expected is not None and arrived != expected:
                raise SizeMismatch(f"{relative or target.name} has {arrived} bytes instead of {expected}")
            count.relative_update(arrived - count.value)  # some backends do not count
            os.replace(partial, target)
        finally:
            Path(partial).unlink(missing_ok=True)


def _counter(advance: Callable[[int], None], stop: threading.Event) -> Any:
    from fsspec.callbacks import Callback

    class Counter(Callback):
        def relative_update(self, inc: int = 1) -> None:
            if stop.is_set():
                raise _Cancelled
            self.value += inc
            advance(inc)

    return Counter()


def _is_folder(name: str, info: Mapping[str, Any]) -> bool:
    """Consoles of object stores mark a folder by an empty object whose name ends in a slash."""
    return name.endswith("/") or info.get("type") == "directory"


def _relative(name: str, root: str) -> str:
    """The path below the root; a server's listing must not lead out of it."""
    relative = unquote(name.removeprefix(root).strip("/")) if "://" in name else name.removeprefix(root).strip("/")
    if not name.startswith(root) or ".." in PurePosixPath(relative).parts:
        raise ValueError(f"the listing names {name}, which is not below {root}")
    return relative
