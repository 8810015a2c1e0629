"""Builds the frame cache of one camera: decodes in several threads, survives interruption, appears when complete."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.data.errors import FrameCacheUnusable
from training.data.frames.cache_plan import CachePlan, Shape
from training.data.frames.decoded_episode import decode_episode
from training.data.frames.journal import Journal
from training.data.frames.manifest import DecodedEpisode, checksum, write_manifest
from training.data.lerobot.dataset import Dataset

__all__ = ["build_camera", "check_room"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def check_room(root: Path, plans: Sequence[CachePlan]) -> None:
    """Announce the size of all that is about to be built. Raises `FrameCacheUnusable` when the disk is too full."""
    for plan in plans:
        print(
            f"Decoding {len(plan.missing)} x {plan.shape[0]} frames into {plan.directory}: {plan.needed / 1e9:.2f} GB",
            file=sys.stderr,
        )
    needed, held = sum(plan.needed for plan in plans), sum(plan.held for plan in plans)
    if needed - held > shutil.disk_usage(root).free:
        raise _no_room(root, needed)


def _no_room(directory: Path, needed: int) -> FrameCacheUnusable:
    free = shutil.disk_usage(directory).free
    return FrameCacheUnusable(
        f"The decoded frames need {needed / 1e9:.1f} GB but {directory} has {free / 1e9:.1f} GB free. "
        "Set CHUNKWIRE_CACHE to a folder on another disk."
    )


def build_camera(plan: CachePlan, key: str, *, skip_corrupt: bool = False) -> None:
    """Decode every rendered frame of a camera into its array, with its manifest beside it.

    Args:
        plan: of the dataset's cache.
        key: the camera.
        skip_corrupt: leave frames that cannot be decoded black and note them, instead of raising.

    Raises:
        FrameCorrupt: a frame cannot be decoded.
        FrameCacheUnusable: the disk is too full.
    """
    dataset, path, content = plan.dataset, plan.path(key), plan.content
    with _only_builder(path):
        if path.exists():  # another process built it while this one waited
            return
        partial = path.with_suffix(".npy.partial")
        journal = Journal(path.with_suffix(".journal"), content)
        images = _open_partial(partial, journal, plan.shape)
        done, total = len(journal.episodes), len(dataset.episodes)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            decoded = pool.map(lambda number: _decode(dataset, key, number, images, skip_corrupt), range(done, total))
            for episode in _with_progress(decoded, key, done, total):
                images.flush()
                journal.add(episode)
        write_manifest(path.with_suffix(".json"), partial, content, journal.episodes)
        partial.replace(path)
        journal.path.unlink()


@contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    """Wait until no other process builds this camera; the lock goes with the process that holds it."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _open_partial(partial: Path, journal: Journal, shape: Shape) -> np.memmap:
    """The array to fill; the journal knows what is in it already."""
    images = _left_behind(partial, shape)
    try:
        if images is None:
            journal.clear()
            images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        else:
            journal.resume(images)
        with partial.open("r+b") as file:  # what has no place on the disk kills the process that writes to its map
            os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise _no_room(partial.parent, math.prod(shape)) from error
    return images


def _left_behind(partial: Path, shape: Shape) -> np.memmap | None:
    try:
        images = np.lib.format.open_memmap(partial, mode="r+")
    except (OSError, ValueError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _decode(dataset: Dataset, key: str, number: int, images: np.memmap, skip_corrupt: bool) -> DecodedEpisode:
    part, rendered = dataset.episodes[number], dataset.rendered
    start = int(rendered[: part.start].sum())
    stop = start + int(rendered[part.start : part.stop].sum())
    corrupt = decode_episode(dataset, key, number, images[start:stop], skip_corrupt=skip_corrupt)
    noted = {str(start + place): reason for place, reason in corrupt.items()}
    return DecodedEpisode(start, stop, checksum(images[start:stop]), noted)


def _with_progress(decoded: Iterator[DecodedEpisode], key: str, done: int, total: int) -> Iterator[DecodedEpisode]:
    columns = (TextColumn(f"Decoding {key}"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield from progress.track(decoded, total=total, completed=done)
