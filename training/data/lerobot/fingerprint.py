"""What a cache is keyed by and what a checkpoint remembers of its data: the hash of a dataset's content.

A dataset is read whole for it once. The hash is noted in the user's cache with the size and the time of every file, and
believed for as long as none of them changes. `meta/chunkwire.json` has one too, of the conversion: what was changed
since is not in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from training.data.lerobot.content_hash import ContentHash
from training.data.lerobot.dataset import Dataset
from training.pi05.download import cache_directory

__all__ = ["fingerprint"]

_LARGE = 1 << 30
"""Bytes that take long enough to hash that a user wants to know."""
_KNOWN: WeakKeyDictionary[Dataset, str] = WeakKeyDictionary()


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 (hex) over the number columns, the task texts and the stored frames, in the order of the rows.

    The container does not count: v2.1 and v3.0 with the same images have the same fingerprint. Read once, see above;
    for one `Dataset` it stays what it was when it was first asked for.

    Raises:
        DatasetInvalid: a column cannot be read.
    """
    if dataset not in _KNOWN:
        _KNOWN[dataset] = _noted_or_read(dataset)
    return _KNOWN[dataset]


def _noted_or_read(dataset: Dataset) -> str:
    files = _files(dataset.root)
    stamp = hashlib.sha256(repr(files).encode()).hexdigest()
    note = _note(dataset.root)
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        if noted["files"] == stamp:
            return str(noted["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not read yet, or the note is damaged
    size = sum(file[1] for file in files)
    if size > _LARGE:
        print(f"Hashing {dataset.root}, {size / 1e9:.1f} GB, once until a file of it changes", file=sys.stderr)
    content = ContentHash(dataset)
    if content.complete:
        _write(note, {"root": str(dataset.root.resolve()), "files": stamp, "fingerprint": content.hex})
    return content.hex


def _files(root: Path) -> list[tuple[str, int, int]]:
    """Path below the root, size in bytes and time of change in nanoseconds of every file."""
    found = []
    for part in ("data", "images", "meta", "videos"):
        for folder, _, names in os.walk(root / part, followlinks=True):
            for path in (Path(folder, name) for name in names):
                if path.is_file():
                    status = path.stat()
                    found.append((str(path.relative_to(root)), status.st_size, status.st_mtime_ns))
    return sorted(found)


def _note(root: Path) -> Path:
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return cache_directory() / "fingerprints" / f"{name}.json"


def _write(note: Path, document: dict[str, str]) -> None:
    """Without it the dataset is read again the next time, no more."""
    fresh = note.with_suffix(f".{os.getpid()}.new")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(document), encoding="utf-8")
        fresh.replace(note)
    except OSError:
        with suppress(OSError):
            fresh.unlink()
