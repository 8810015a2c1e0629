"""A container's log, shown as it is written and across the container's restarts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from docker.errors import DockerException
from docker.models.containers import Container
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

__all__ = ["LogTail"]


class LogTail:
    """Passes every line on, from a thread of its own.

    Args:
        container: started or not.
        show: called with each line.
        keep: how many of the last lines `last` has.
    """

    def __init__(self, container: Container, show: Callable[[str], None], keep: int = 50) -> None:
        self._container, self._show = container, show
        self._last: deque[str] = deque(maxlen=keep)
        self._seen = ""
        self._thread: threading.Thread | None = None

    @property
    def last(self) -> tuple[str, ...]:
        """The last lines, the newest at the end."""
        return tuple(self._last)

    def follow(self) -> None:
        """Begin, or go on after the container was started again."""
        self.join()
        self._thread = threading.Thread(target=self._run, name=f"log of {self._container.name}", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float = 5.0) -> None:
        """Wait for the rest of the log of a container that ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        # The engine's death is noticed, and told, where the container's state is asked for.
        with suppress(DockerException, RequestException, HTTPError):
            chunks = self._container.logs(stream=True, follow=True, timestamps=True)
            for line in _lines(chunks):
                self._take(line)

    def _take(self, line: str) -> None:
        # The log of a container begins with what it wrote before it was started again. Stamps are of one length.
        stamp, _, text = line.partition(" ")
        if stamp > self._seen:
            self._seen = stamp
            self._last.append(text)
            self._show(text)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Whole lines: a chunk may end anywhere, also within a character."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")
