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

from training.data.errors import FrameCacheUnusable
from training.data.lerobot.dataset import Dataset
from training.pi05.transforms.images import resize_with_pad

__all__ = ["build_camera", "check_room"]

Shape = tuple[int, int, int, int]
"""(frames, height, width, 3)."""


def check_room(directory: Path, shape: Shape, cameras: int) -> None:
    """Announce the size of what is about to be built. Raises `FrameCacheUnusable` when the disk is too full."""
    needed, free = cameras * math.prod(shape), shutil.disk_usage(directory).free
    started = sum(path.stat().st_size for path in directory.glob("*.partial"))
    print(f"Decoding {cameras} x {shape[0]} frames into {directory}: {needed / 1e9:.2f} GB", file=sys.stderr)
    if needed - started > free:
        raise FrameCacheUnusable(
            f"The decoded frames need {needed / 1e9:.1f} GB but {directory} has {free / 1e9:.1f} GB free. "
            "Set CHUNKWIRE_CACHE to a folder on another disk."
        )


def build_camera(dataset: Dataset, key: str, path: Path, shape: Shape) -> None:
    """Decode every rendered frame of a camera into the array `path`. Raises `FrameCorrupt`."""
    with _only_builder(path):
        if path.exists():  # another process built it while this one waited
            return
        partial, journal = path.with_suffix(".npy.partial"), path.with_suffix(".journal")
        images, done = _resume(partial, journal, shape)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            episodes = range(done, len(dataset.episodes))
            decoded = pool.map(lambda episode: _decode(dataset, key, episode, images), episodes)
            for episode, _ in zip(episodes, _with_progress(decoded, key, done, len(dataset.episodes)), strict=True):
                images.flush()
                _write_journal(journal, episode + 1)
        partial.replace(path)
        journal.unlink()


@contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    """Wait until no other process builds this camera; the lock goes with the process that holds it."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _resume(partial: Path, journal: Path, shape: Shape) -> tuple[np.memmap, int]:
    """The array to fill and the number of episodes that are in it already."""
    try:
        images = np.lib.format.open_memmap(partial, mode="r+")
        done = int(journal.read_text())
        if images.shape == shape and images.dtype == np.uint8:
            return images, done
    except (OSError, ValueError):
        pass  # nothing usable was left behind: begin anew
    journal.unlink(missing_ok=True)
    return np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape), 0


def _write_journal(journal: Path, episodes: int) -> None:
    fresh = journal.with_suffix(".journal.new")
    fresh.write_text(str(episodes))
    fresh.replace(journal)


def _decode(dataset: Dataset, key: str, episode: int, images: np.memmap) -> None:
    part = dataset.episodes[episode]
    rendered = dataset.rendered
    slot = int(rendered[: part.start].sum())
    wanted = np.flatnonzero(rendered[part.start : part.stop]).tolist()
    for place, frame in enumerate(dataset.frames(key, episode, wanted), start=slot):
        images[place] = resize_with_pad(frame, images.shape[1], images.shape[2])


def _with_progress(decoded: Iterator[None], key: str, done: int, total: int) -> Iterator[None]:
    columns = (TextColumn(f"Decoding {key}"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield from progress.track(decoded, total=total, completed=done)
