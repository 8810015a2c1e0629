"""One worker process as its parent sees it."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sim_client.crew import worker
from sim_client.crew.workshop import Workshop
from sim_client.ctrl_c import ignoring

__all__ = ["Member"]

_START_S = 600.0
"""Limit for a worker's start: importing the simulator from a cold disk takes minutes."""


class Member:
    """The process, the job it works on and when it must next be heard of.

    Args:
        log: receives what the process prints.
        threads: rendering threads of the process.
        silence_s: how long it may give no sign of life at work.
        news: is set whenever a message has arrived.
    """

    def __init__(self, workshop: Workshop, log: Path, threads: int, silence_s: float, news: threading.Event) -> None:
        context = multiprocessing.get_context("spawn")
        self.log = log
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=worker.worker_main, args=(theirs, workshop, log, threads), daemon=True)
        with ignoring(signal.SIGINT):  # not even before its first line runs does it see Ctrl-C
            self.process.start()
        theirs.close()
        self.job: Any = None
        self.ready = False
        self._silence_s = silence_s
        self.heard(_START_S)
        self._messages: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        # In a thread: who is stopped in the middle of a message lets its reader wait.
        self._listener = threading.Thread(target=self._listen, args=(news,), daemon=True)
        self._listener.start()

    @property
    def idle(self) -> bool:
        """Set up and without a job."""
        return self.ready and self.job is None

    @property
    def overdue(self) -> bool:
        """At work, and silent for longer than it may be."""
        return not self.idle and time.monotonic() > self.deadline

    def take(self, job: Any) -> None:
        """Start on `job`. If the process is dead already, the next of `messages` tells."""
        self.job = job
        self.heard()
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(job)

    def heard(self, patience_s: float | None = None) -> None:
        """Note a sign of life; the next one is due within `patience_s` seconds."""
        self.patience_s = max(self._silence_s, patience_s or 0.0)
        self.deadline = time.monotonic() + self.patience_s

    def messages(self) -> Iterator[tuple[Any, ...] | None]:
        """What has arrived; None when the process is dead."""
        while not self._messages.empty():
            yield self._messages.get()

    def _listen(self, news: threading.Event) -> None:
        message: tuple[Any, ...] | None = ()
        while message is not None:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):  # the end of the pipe, or of half a message
                message = None
            self._messages.put(message)
            news.set()

    def end(self) -> None:
        """Make an end of the process."""
        self.process.kill()
        self.process.join()
        self._listener.join()  # to the end of the pipe, which only the process held open
        self._connection.close()

    def death(self) -> str:
        """Why the process died, with the last line it printed."""
        self.process.join(timeout=5)
        code = self.process.exitcode
        how = f"by {signal.Signals(-code).name}" if code and code < 0 else f"with exit code {code}"
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return f"the worker died {how}" + (f": {lines[-1][:200]}" if lines else "")
