"""Goal 6: samples a second of the data loader on one core.

    python benchmarks/loader.py [--rounds 5] [--peer-python PYTHON [--format v2.1]]

Goal 6: at least 3,000 samples a second with two 224x224 cameras and a warm cache; horizon 50 costs at most 1.05 times
horizon 10. Against it stand the loader that this work grew from, rebuilt (a sample is a slice of rows, every image of
which is decoded), and lerobot itself, where --peer-python names a Python that has it.

All loaders run on one core, on one dataset, and take turns: A B C A B C … Their seconds are the processor's, of all
their threads, so that other programs on the machine do not count. "Cold" is the first epoch with everything that comes
before it: opening the dataset and decoding all its frames. "Mixed" draws three of four samples from that dataset and
the fourth from another. The dataset is small enough to lie in the page cache, and so are its frames: what a disk adds,
loader_large.py tells.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer
from loader_dataset import CAMERAS, write_dataset
from loader_decoding import DecodingLoader
from loader_peer import Lerobot, open_lerobot
from rich.console import Console
from rich.table import Table

from training.data import Dataset, Loader, MixedLoader, open_data
from training.data.lerobot.writing.dataset_writer import DatasetFormat

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
    version: DatasetFormat
    peer_python: str | None


def open_ours(names: Sequence[str], cache: Path, horizon: int) -> Loader | MixedLoader:
    """Our loader as `train` opens it."""
    data = open_data(names, seed=0)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        loaders = data.loaders(cache, height=_SIDE, width=_SIDE, action_horizon=horizon, batch_size=_BATCH)
    return loaders.train


def measure(root: Path, other: Path, horizon: int, work: Path, setting: Setting) -> dict[str, float]:
    """Median samples a second of each loader; refuses to time one that loads something else."""
    ours, decoding = open_ours([str(root)], work / "warm", horizon), DecodingLoader(Dataset(root), horizon)
    mixed = open_ours([f"{root}=3", f"{other}=1"], work / "warm", horizon)
    rows = ours.rows(0)[: setting.decoded]
    epoch = -(-setting.episodes * setting.length // _BATCH)
    ways: dict[str, Callable[[], float]] = {
        "slices, decoding every image": _seconds(lambda: decoding.samples(rows)),
        "ours, cold": _seconds(_first_epoch(root, work, horizon, epoch)),
        "ours, warm": _seconds(_turn(ours)),
        "ours, warm, mixed": _seconds(_turn(mixed)),
    }
    warm = _WARM_BATCHES * _BATCH
    loaded = {"ours, cold": epoch * _BATCH, "ours, warm": warm, "ours, warm, mixed": warm}
    _check(ours, decoding, rows)
    with contextlib.ExitStack() as stack:
        if setting.peer_python is not None:
            peer = stack.enter_context(open_lerobot(setting.peer_python, root, horizon))
            _check_peer(ours, peer, rows)
            ways = {f"lerobot {peer.version}": lambda: peer.load(rows)[0], **ways}
        rounds = [{name: way() for name, way in ways.items()} for _ in range(setting.rounds + 1)][1:]
    return {name: loaded.get(name, len(rows)) / float(np.median([each[name] for each in rounds])) for name in ways}


def _seconds(call: Callable[[], object]) -> Callable[[], float]:
    """The same call, returning the processor's seconds that it took."""

    def timed() -> float:
        begun = time.process_time()
        call()
        return time.process_time() - begun

    return timed


def _first_epoch(root: Path, work: Path, horizon: int, batches: int) -> Callable[[], None]:
    """Opens the dataset with a new cache and loads its first batches."""
    fresh = itertools.count()

    def cold() -> None:
        cache = work / f"cold{next(fresh)}"
        loader = open_ours([str(root)], cache, horizon)
        for step in range(batches):
            loader.batch(step)
        shutil.rmtree(cache)

    return cold


def _turn(loader: Loader | MixedLoader) -> Callable[[], None]:
    """The next batches of a loader."""
    steps = itertools.count()

    def turn() -> None:
        for _ in range(_WARM_BATCHES):
            loader.batch(next(steps))

    return turn


def _check(ours: Loader | MixedLoader, decoding: DecodingLoader, rows: np.ndarray) -> None:
    batch, (images, state, actions) = ours.samples(rows), decoding.samples(rows)
    for key, frames in images.items():
        np.testing.assert_array_equal(batch.images[key], frames)
    np.testing.assert_array_equal(batch.state, state)
    np.testing.assert_array_equal(batch.actions, actions)


def _check_peer(ours: Loader | MixedLoader, peer: Lerobot, rows: np.ndarray) -> None:
    batch = ours.samples(rows)
    expected = [batch.actions.sum(dtype=np.float64), batch.images[CAMERAS[0]].mean(dtype=np.float64)]
    np.testing.assert_allclose(peer.load(rows)[1:], expected, rtol=1e-3, atol=1e-2)


def loaders(work: Path, setting: Setting, cameras: list[int], horizons: list[int]) -> None:
    """The table of goal 6."""
    core = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(core)})  # and whatever is started from here: decoding threads, lerobot
    columns = {}
    for count in cameras:
        root, other = (
            write_dataset(work / f"{name}{count}", count, episodes, setting.length, _SIDE, version=setting.version)
            for name, episodes in (("cameras", setting.episodes), ("other", max(1, setting.episodes // 2)))
        )
        for horizon in horizons:
            columns[count, horizon] = measure(root, other, horizon, work, setting)
    os.sched_setaffinity(0, core)
    rows = setting.episodes * setting.length
    of = f"{_SIDE}x{_SIDE} PNG, {rows} rows, median of {setting.rounds} rounds"
    table = Table(title=f"samples/s of one core's time, {of}")
    table.add_column("loader")
    for count, horizon in columns:
        table.add_column(f"{count} camera{'s'[: count - 1]}\nhorizon {horizon}", justify="right")
    for name in next(iter(columns.values())):
        table.add_row(name, *[f"{figures[name]:,.1f}" for figures in columns.values()])
    console.print(table)
    for count in cameras:
        warm, mixed = (
            [columns[count, each][name] for each in horizons] for name in ("ours, warm", "ours, warm, mixed")
        )
        longer, share = warm[0] / warm[-1], np.median(mixed) / np.median(warm)
        ratio = f"horizon {horizons[-1]} costs {longer:.2f} times horizon {horizons[0]}, mixed gives {share:.0%} of one"
        console.print(f"ours, warm, {count} x {_SIDE}x{_SIDE}: {ratio}")


def main(
    cameras: Annotated[str, typer.Option(help="Numbers of cameras, separated by commas.")] = "1,2",
    horizons: Annotated[str, typer.Option(help="Action horizons, separated by commas.")] = "10,50",
    episodes: Annotated[int, typer.Option(help="Episodes of the dataset.")] = 6,
    length: Annotated[int, typer.Option(help="Rows of an episode.")] = 100,
    rounds: Annotated[int, typer.Option(help="Turns of each loader.")] = 5,
    decoded: Annotated[int, typer.Option(help="Samples in a turn of a loader that decodes them, at most 32.")] = 8,
    version: Annotated[str, typer.Option("--format", help="Format of the dataset, v3.0 or v2.1.")] = "v3.0",
    peer_python: Annotated[str | None, typer.Option(help="Python of an environment that has lerobot.")] = None,
) -> None:
    """Print one table."""
    setting = Setting(episodes, length, rounds, decoded, cast(DatasetFormat, version), peer_python)
    counts, lengths = ([int(part) for part in text.split(",")] for text in (cameras, horizons))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        loaders(work, setting, counts, lengths)


if __name__ == "__main__":
    typer.run(main)
