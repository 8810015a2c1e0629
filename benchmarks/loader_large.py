"""Goal 6 with a frame cache too large for any processor's caches, in memory and not.

    python benchmarks/loader_large.py [--rows 7000]

7,000 rows with two 224x224 cameras are 2.1 GB of frames. Three ways to come by a sample:

    decoded      the first run on a dataset: every frame is decoded once, on one core
    from memory  the cache is in the page cache: what every later step finds where the memory holds it
    from disk    the cache is dropped from memory first: what a step finds of a cache far larger than the memory

Memory and disk take turns, each on random batches that were not drawn before. The first two are samples a second of
the processor's time, which other programs on the machine do not change; disk is by the clock, on one core. The cache
lies in the folder --work: put it on the disk in question.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from loader_dataset import write_dataset
from rich.console import Console
from rich.table import Table

from training.data import Loader, MixedLoader, open_data

console = Console(width=140)
_BATCH, _SIDE, _LENGTH, _SCENES = 32, 224, 100, 4


def open_loader(root: Path, cache: Path, horizon: int) -> Loader | MixedLoader:
    """The loader as `train` opens it; decodes what is not in the cache."""
    data = open_data([str(root)], seed=0)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        return data.loaders(cache, height=_SIDE, width=_SIDE, action_horizon=horizon, batch_size=_BATCH).train


def drop(cache: Path) -> None:
    """Write the cache's files to the disk and let go of them in memory; no file may be mapped."""
    for path in cache.rglob("*.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def keep(cache: Path) -> None:
    """Read the cache's files, so that they are in memory."""
    for path in cache.rglob("*.npy"):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def rate(
    root: Path, cache: Path, horizon: int, steps: Iterator[int], batches: int, clock: Callable[[], float]
) -> float:
    """Samples a second of the next batches, by a clock."""
    loader = open_loader(root, cache, horizon)
    begun = clock()
    for step in itertools.islice(steps, batches):
        loader.batch(step)
    return batches * _BATCH / (clock() - begun)


def measure(work: Path, cameras: int, rows: int, horizons: list[int], rounds: int, batches: int) -> list[list[str]]:
    """The table's lines of a dataset with so many cameras."""
    root, cache = work / f"cameras{cameras}", work / f"cache{cameras}"
    write_dataset(root, cameras, rows // _LENGTH, _LENGTH, _SIDE, scenes=_SCENES)
    begun = time.process_time()
    open_loader(root, cache, horizons[0])
    decoded = rows / (time.process_time() - begun)
    size, lines = sum(path.stat().st_size for path in cache.rglob("*.npy")) / 1e9, []
    for horizon in horizons:
        steps, memory, disk = itertools.count(), [], []
        for _ in range(rounds):
            drop(cache)
            disk.append(rate(root, cache, horizon, steps, batches, time.perf_counter))
            keep(cache)
            memory.append(rate(root, cache, horizon, steps, batches, time.process_time))
        figures = (decoded, float(np.median(memory)), float(np.median(disk)))
        lines.append([str(cameras), str(horizon), f"{size:.1f}", *[f"{figure:,.0f}" for figure in figures]])
    return lines


def main(
    cameras: Annotated[str, typer.Option(help="Numbers of cameras, separated by commas.")] = "1,2",
    horizons: Annotated[str, typer.Option(help="Action horizons, separated by commas.")] = "10,50",
    rows: Annotated[int, typer.Option(help="Rows of the dataset.")] = 7000,
    rounds: Annotated[int, typer.Option(help="Turns of memory and disk.")] = 5,
    batches: Annotated[int, typer.Option(help="Batches of a turn.")] = 20,
    work: Annotated[Path | None, typer.Option(help="Where dataset and cache are made, an existing folder.")] = None,
) -> None:
    """Print one table."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # decoding threads too
    counts, lengths = ([int(part) for part in text.split(",")] for text in (cameras, horizons))
    title = f"samples/s on one core, {_SIDE}x{_SIDE}, {rows} rows, load {os.getloadavg()[0]:.1f} before"
    table = Table(title=title)
    for head in ("cameras", "horizon", "cache GB", "decoded", "from memory", "from disk"):
        table.add_column(head, justify="right")
    with tempfile.TemporaryDirectory(dir=work) as folder:
        for count in counts:
            for line in measure(Path(folder), count, rows, lengths, rounds, batches):
                table.add_row(*line)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
