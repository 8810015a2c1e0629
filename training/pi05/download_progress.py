"""What a download shows: a bar on a terminal, a line for each tenth elsewhere."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

__all__ = ["DownloadProgress"]


class DownloadProgress:
    """Counts the bytes of all files of one download, from any thread, on standard error.

    Args:
        source: what is downloaded, as the user named it.
        files: how many files.
        size: bytes of all of them; 0 where the server does not say.
    """

    def __init__(self, source: str, files: int, size: int) -> None:
        self._source, self._size, self._done, self._tenths = source, size, 0, 0
        self._lock = threading.Lock()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        console = Console(file=sys.stderr)
        self._live = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._task = self._live.add_task(f"downloading {source}", total=size or None)
        self._line(f"downloading {source}: {files} {'file' if files == 1 else 'files'}, {decimal(size)}")

    def __enter__(self) -> DownloadProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def advance(self, count: int) -> None:
        """So many bytes more have arrived."""
        with self._lock:
            self._done += count
            self._live.update(self._task, completed=self._done)
            tenths = 10 * self._done // self._size if self._size else 0
            if tenths > self._tenths:
                self._tenths = tenths
                self._line(f"downloading {self._source}: {min(tenths, 10)}0%")

    def _line(self, text: str) -> None:
        if self._live.disable:
            print(text, file=sys.stderr, flush=True)
