"""Goals 6 and 7: samples a second of the data loader on one core, and how much of a training step waits for it.

    python benchmarks/loader.py [--peer-python PYTHON] [--training-steps 30]

Goal 6: at least 3,000 samples a second with two 224x224 cameras and a warm cache; horizon 50 costs at most 1.05 times
horizon 10. Against it stand the loader that this work grew from (a sample is a slice of rows, every image of which is
decoded) and lerobot itself, when --peer-python names a Python that has it. Goal 7: at most 2% of a step is waiting,
in the training loop itself, by its own `metrics.jsonl`.

All loaders run in one thread on one core, on one dataset, and take turns: A B C A B C … "Cold" is the first epoch with
everything that comes before it: opening the dataset and decoding all its frames. The dataset is small enough to lie in
the page cache, and so are its frames: what a disk adds is not in these figures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
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
    peer_python: str | None


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
    with contextlib.ExitStack() as stack:
        if setting.peer_python is not None:
            name, load = stack.enter_context(_lerobot(setting.peer_python, root, horizon))
            _check_lerobot(ours, load, rows)
            ways = {name: lambda: load(rows), **ways}
        seconds = interleaved(ways, setting.rounds, calls=1)
    return {name: loaded.get(name, len(rows)) / float(np.median(each)) for name, each in seconds.items()}


def _check(ours: Loader | MixedLoader, decoding: DecodingLoader, rows: np.ndarray) -> None:
    batch, (images, state, actions) = ours.samples(rows), decoding.samples(rows)
    for key, frames in images.items():
        np.testing.assert_array_equal(batch.images[key], frames)
    np.testing.assert_array_equal(batch.state, state)
    np.testing.assert_array_equal(batch.actions, actions)


@contextlib.contextmanager
def _lerobot(python: str, root: Path, horizon: int) -> Iterator[tuple[str, Callable[[np.ndarray], list[float]]]]:
    """lerobot's name and version, and what loads rows in its process."""
    script = Path(__file__).with_name("loader_lerobot.py")
    command = [python, str(script), str(root), str(horizon)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=offline
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        if ready[:1] != ["ready"]:
            raise SystemExit(f"--peer-python {python} cannot run lerobot. Try: {' '.join(command)}")

        def load(rows: np.ndarray) -> list[float]:
            print(*rows.tolist(), file=process.stdin, flush=True)
            return [float(figure) for figure in process.stdout.readline().split()]

        yield f"lerobot {ready[1]}", load
        process.stdin.close()


def _check_lerobot(ours: Loader | MixedLoader, load: Callable[[np.ndarray], list[float]], rows: np.ndarray) -> None:
    batch = ours.samples(rows)
    expected = [batch.actions.sum(dtype=np.float64), batch.images["image"].mean(dtype=np.float64)]
    np.testing.assert_allclose(load(rows), expected, rtol=1e-3, atol=1e-2)


def loaders(work: Path, setting: Setting, cameras: list[int], horizons: list[int]) -> None:
    """The table of goal 6."""
    core = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(core)})  # and whatever is started from here: decoding threads, lerobot
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


def waiting(work: Path, experiment: str, dataset: Path, steps: int) -> None:
    """The line of goal 7: `train` itself in a process of its own, on all cores."""
    settings = [f"steps={steps}", "log_every=5", f"save_every={steps}", "optimizer.warmup_steps=1"]
    command = [
        sys.executable,
        "-c",
        "from training.cli import main; main()",
        "run",
        experiment,
        "--exp-name",
        "waiting",
    ]
    command += ["--dataset", str(dataset), "--runs", str(work / "runs")]
    command += [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        command, env={**os.environ, "CHUNKWIRE_CACHE": str(work / "cache")}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    lines = (work / "runs" / experiment / "waiting" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines[1:]]  # the first has the compilation in it
    share = statistics.median(record["data_wait_share"] for record in records)
    seconds = statistics.median(record["step_seconds"] for record in records)
    worst = max(record["data_wait_share"] for record in records)
    console.print(
        f"{experiment}: {seconds * 1e3:.0f} ms a step, waiting for data {share:.2%} of it "
        f"(worst of {len(records)} records of 5 steps: {worst:.2%})"
    )


def main(
    cameras: Annotated[str, typer.Option(help="Numbers of cameras, separated by commas.")] = "1,2",
    horizons: Annotated[str, typer.Option(help="Action horizons, separated by commas.")] = "10,50",
    episodes: Annotated[int, typer.Option(help="Episodes of the dataset.")] = 6,
    length: Annotated[int, typer.Option(help="Rows of an episode.")] = 100,
    rounds: Annotated[int, typer.Option(help="Turns of each loader.")] = 5,
    decoded: Annotated[int, typer.Option(help="Samples in a turn of a loader that decodes them, at most 32.")] = 8,
    peer_python: Annotated[str | None, typer.Option(help="Python of an environment with lerobot[dataset].")] = None,
    experiment: Annotated[str, typer.Option(help="Experiment of goal 7.")] = "pi05_maniskill_stackcube_small",
    dataset: Annotated[Path | None, typer.Option(help="Dataset of goal 7 instead of the one made here.")] = None,
    training_steps: Annotated[int, typer.Option(help="Steps of goal 7, at least 10; 0 leaves it out.")] = 30,
) -> None:
    """Print one table and a line."""
    setting = Setting(episodes, length, rounds, decoded, peer_python)
    counts, lengths = ([int(part) for part in text.split(",")] for text in (cameras, horizons))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        loaders(work, setting, counts, lengths)
        if training_steps:
            waiting(work, experiment, dataset or work / f"cameras{max(counts)}", training_steps)


if __name__ == "__main__":
    typer.run(main)
