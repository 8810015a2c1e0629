"""`train stats`: the norm stats of a dataset."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.data.lerobot.dataset import Dataset
from training.data.lerobot.hub import find_dataset
from training.data.statistics.norm_stats import NORM_STATS_FILE, compute_norm_stats
from training.pi05.transforms.normalization import NormStats, write_norm_stats

__all__ = ["stats_command"]


def stats_command(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="LeRobot dataset: a folder, or a Hub id OWNER/NAME[@REVISION].")
    ],
) -> None:
    """Compute the norm stats of a dataset, print them and write them to its meta/norm_stats.json."""
    data = Dataset(find_dataset(dataset))
    stats = compute_norm_stats(data)
    console = Console(highlight=False)
    for key, entry in stats.items():
        console.print(_table(key, data.features[key].names, entry))
    write_norm_stats(data.root / NORM_STATS_FILE, stats)
    console.print(f"{data.rows} rows of {len(data.episodes)} episodes, written to {data.root / NORM_STATS_FILE}")


def _table(key: str, names: tuple[str, ...] | None, stats: NormStats) -> Table:
    table = Table(title=key, title_justify="left")
    table.add_column("dimension")
    columns = {"mean": stats.mean, "std": stats.std, "q01": stats.q01, "q99": stats.q99}
    for column in columns:
        table.add_column(column, justify="right")
    for index in range(stats.dimension):
        # A plain dataset may name the whole vector rather than its dimensions.
        name = names[index] if names and len(names) == stats.dimension else str(index)
        table.add_row(name, *(f"{values[index]:.4f}" for values in columns.values()))
    return table
