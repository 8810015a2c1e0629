"""A series of evaluations as a table on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

__all__ = ["show_table"]


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]], lines: Iterable[str]) -> None:
    """Print the table and, below it, the lines: the result stands last, where the eye is when a command ends."""
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to fit into
        console = Console(markup=False, highlight=False, width=1000)
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in lines:
        console.print(line, soft_wrap=True)
