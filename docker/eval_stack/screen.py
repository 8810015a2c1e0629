"""What the user sees while containers run: their lines under a name, and how far the matrix is."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.prompt import Confirm
from rich.text import Text

__all__ = ["Screen"]

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue")


class Screen:
    """Lines from several threads, and one bar below them on a terminal; elsewhere a line at each count.

    Args:
        console: where it goes; standard error by default, as standard output is for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._colours: dict[str, str] = {}
        self._bar = self._progress.add_task("", total=None, visible=False)
        self._told = -1

    def say(self, text: str) -> None:
        """A line of eval-stack's own."""
        with suppress(OSError):  # the terminal may be gone; what is to be cleaned up still is
            self._console.print(Text(text), soft_wrap=True)

    def line(self, name: str, text: str) -> None:
        """A line of a container's log."""
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        with suppress(OSError):
            self._console.print(Text.assemble((f"{name} | ", colour), Text.from_ansi(text)), soft_wrap=True)

    def asks(self, question: str) -> bool:
        """The answer of a person; no where there is none."""
        if not (self._console.is_terminal and sys.stdin.isatty()):
            return False
        return Confirm.ask(question, console=self._console)

    def show(self, what: str, done: int, total: int | None, unit: str = "") -> None:
        """Set the bar. With a `unit`, the count is a line where there is no bar."""
        self._progress.update(self._bar, description=what, completed=done, total=total, visible=True)
        if unit and not self._console.is_terminal and done != self._told:
            self._told = done
            self.say(f"{what}: {done} of {total} {unit}.")

    def hide(self) -> None:
        """Take the bar away until it is set again."""
        self._progress.update(self._bar, visible=False)

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._progress.stop()
