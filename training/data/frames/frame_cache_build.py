"""Builds the frame cache of one camera: decodes in several threads, survives interruption, appears when complete."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.data.errors import FrameCacheUnusable, FrameCorrupt
from training.data.frames.journal import Journal
from training.data.frames.manifest import DecodedEpisode, checksum, write_manifest
from training.data.lerobot.dataset import Dataset
from training.pi05.transforms.images import resize_with_pad

__all__ = ["build_camera", "check_room"]

Shape = tuple[int, int, int, int]
"""(frames, height, width, 3)."""


def check_room(directory: Path, shape: Shape, cameras: int) -> None:
    """Announce the size of what is about to be built. Raises `FrameCacheUnusable` when the disk is too full."""
    needed, free = cameras * math.prod(shape), shutil.disk_usage(directory).free
    started = sum(path.stat().st_blocks * 512 for path in directory.glob("*.partial"))
    print(f"Decoding {cameras} x {shape[0]} frames into {directory}: {needed / 1e9:.2f} GB", file=sys.stderr)
    if needed - started > free:
        raise FrameCacheUnusable(
            f"The decoded frames need {needed / 1e9:.1f} GB but {directory} has {free / 1e9:.1f} GB free. "
            "Set CHUNKWIRE_CACHE to a folder on another disk."
        )


def build_camera(
    dataset: Dataset, key: str, path: Path, shape: Shape, content: str, *, skip_corrupt: bool = False
) -> None:
    """Decode every rendered frame of a camera into the array `path`, with its manifest beside it.

    Args:
        dataset: where the frames are.
        key: the camera.
        path: the array, `.npy`.
        shape: its shape.
        content: the dataset's fingerprint.
        skip_corrupt: leave frames that cannot be decoded black and note them, instead of raising.

    Raises:
        FrameCorrupt: a frame cannot be decoded.
    """
    with _only_builder(path):
        if path.exists():  # another process built it while this one waited
            return
        partial = path.with_suffix(".npy.partial")
        journal = Journal(path.with_suffix(".journal"), content)
        images = _open_partial(partial, journal, shape)
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
    try:
        images = np.lib.format.open_memmap(partial, mode="r+")
        if images.shape == shape and images.dtype == np.uint8:
            journal.resume(images)
            return images
    except (OSError, ValueError):
        pass  # nothing usable was left behind: begin anew
    journal.clear()
    return np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)


def _decode(dataset: Dataset, key: str, number: int, images: np.memmap, skip_corrupt: bool) -> DecodedEpisode:
    part = dataset.episodes[number]
    rendered = dataset.rendered
    start = int(rendered[: part.start].sum())
    wanted = np.flatnonzero(rendered[part.start : part.stop]).tolist()
    corrupt: dict[str, str] = {}
    done = 0
    while done < len(wanted):
        try:
            for frame in dataset.frames(key, number, wanted[done:]):
                images[start + done] = resize_with_pad(frame, images.shape[1], images.shape[2])
                done += 1
        except FrameCorrupt as error:
            if not skip_corrupt:
                raise
            images[start + done] = 0
            corrupt[str(start + done)] = error.message
            done += 1  # go on behind it
    stop = start + len(wanted)
    return DecodedEpisode(start, stop, checksum(images[start:stop]), corrupt)


def _with_progress(decoded: Iterator[DecodedEpisode], key: str, done: int, total: int) -> Iterator[DecodedEpisode]:
    columns = (TextColumn(f"Decoding {key}"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield from progress.track(decoded, total=total, completed=done)
