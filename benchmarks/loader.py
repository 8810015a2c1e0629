"""Goal 6: samples a second of the data loader on one core.

    python benchmarks/loader.py [--rounds 5]

Goal 6: at least 3,000 samples a second with two 224x224 cameras and a warm cache; horizon 50 costs at most 1.05 times
horizon 10. Against it stands the loader that this work grew from, rebuilt: a sample is a slice of rows, every image of
which is decoded.

All loaders run on one core, on one dataset, and take turns: A B C A B C … "Cold" is the first epoch with
everything that comes before it: opening the dataset and decoding all its frames. The dataset is small enough to lie in
the page cache, and so are its frames: what a disk adds is not in these figures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from interleaved import interleaved
from loader_dataset import write_dataset
from loader_decoding import DecodingLoader
from rich.console import Console
from rich.table import Table

from training.data import Dataset, Loader, MixedLoader, open_data

console = Console(width=140)
_BATCH, _SIDE = 32, 224
_WARM_BATCHES = 20
"""Batches of ours in a turn, for a turn of measurable length."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is loaded, and how often."""

    episodes: int
    length: int
    rounds: int
    decoded: int
    """Samples in a turn of a loader that decodes them."""


def open_ours(root: Path, cache: Path, horizon: int) -> Loader | MixedLoader:
    """Our loader as `train` opens it."""
    data = open_data([str(root)], seed=0)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        loaders = data.loaders(cache, height=_SIDE, width=_SIDE, action_horizon=horizon, batch_size=_BATCH)
    return loaders.train


def measure(root: Path, horizon: int, work: Path, setting: Setting) -> dict[str, float]:
    """Median samples a second of each loader; refuses to time one that loads something else."""
    ours, decoding = open_ours(root, work / "warm", horizon), DecodingLoader(Dataset(root), horizon)
    rows = ours.rows(0)[: setting.decoded]
    steps, fresh = itertools.count(), itertools.count()
    epoch = -(-setting.episodes * setting.length // _BATCH)

    def cold() -> None:
        cache = work / f"cold{next(fresh)}"
        loader = open_ours(root, cache, horizon)
        for step in range(epoch):
            loader.batch(step)
        shutil.rmtree(cache)

    def warm() -> None:
        for _ in range(_WARM_BATCHES):
            ours.batch(next(steps))

    ways: dict[str, Callable[[], object]] = {
        "slices, decoding every image": lambda: decoding.samples(rows),
        "ours, cold": cold,
        "ours, warm": warm,
    }
    loaded = {"ours, cold": epoch * _BATCH, "ours, warm": _WARM_BATCHES * _BATCH}
    _check(ours, decoding, rows)
    seconds = interleaved(ways, setting.rounds, calls=1)
    return {name: loaded.get(name, len(rows)) / float(np.median(each)) for name, each in seconds.items()}


def _check(ours: Loader | MixedLoader, decoding: DecodingLoader, rows: np.ndarray) -> None:
    batch, (images, state, actions) = ours.samples(rows), decoding.samples(rows)
    for key, frames in images.items():
        np.testing.assert_array_equal(batch.images[key], frames)
    np.testing.assert_array_equal(batch.state, state)
    np.testing.assert_array_equal(batch.actions, actions)


def loaders(work: Path, setting: Setting, cameras: list[int], horizons: list[int]) -> None:
    """The table of goal 6."""
    core = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(core)})  # and whatever is started from here: decoding threads
    columns = {}
    for count in cameras:
        root = write_dataset(work / f"cameras{count}", count, setting.episodes, setting.length, _SIDE)
        for horizon in horizons:
            columns[count, horizon] = measure(root, horizon, work, setting)
    os.sched_setaffinity(0, core)
    rows = setting.episodes * setting.length
    table = Table(title=f"samples/s on one core, {_SIDE}x{_SIDE} PNG, {rows} rows, median of {setting.rounds} rounds")
    table.add_column("loader")
    for count, horizon in columns:
        table.add_column(f"{count} camera{'s'[: count - 1]}\nhorizon {horizon}", justify="right")
    for name in next(iter(columns.values())):
        table.add_row(name, *[f"{figures[name]:,.1f}" for figures in columns.values()])
    console.print(table)
    for count in cameras:
        first, last = (columns[count, horizon]["ours, warm"] for horizon in (min(horizons), max(horizons)))
        ratio = f"horizon {max(horizons)} costs {first / last:.2f} times horizon {min(horizons)}"
        console.print(f"ours, warm, {count} x {_SIDE}x{_SIDE}: {ratio}")


def main(
    cameras: Annotated[str, typer.Option(help="Numbers of cameras, separated by commas.")] = "1,2",
    horizons: Annotated[str, typer.Option(help="Action horizons, separated by commas.")] = "10,50",
    episodes: Annotated[int, typer.Option(help="Episodes of the dataset.")] = 6,
    length: Annotated[int, typer.Option(help="Rows of an episode.")] = 100,
    rounds: Annotated[int, typer.Option(help="Turns of each loader.")] = 5,
    decoded: Annotated[int, typer.Option(help="Samples in a turn of a loader that decodes them, at most 32.")] = 8,
) -> None:
    """Print one table."""
    setting = Setting(episodes, length, rounds, decoded)
    counts, lengths = ([int(part) for part in text.split(",")] for text in (cameras, horizons))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        loaders(work, setting, counts, lengths)


if __name__ == "__main__":
    typer.run(main)
