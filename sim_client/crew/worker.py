"""The process of one worker. It talks to the parent in tuples that begin with one of the words below."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from policy_protocol.errors import ChunkwireError
from sim_client.crew.workshop import Workshop

__all__ = ["ALIVE", "BROKEN", "DONE", "MADE", "READY", "worker_main"]

ALIVE = "alive"
"""(note or None, seconds of patience or None): a sign of life."""
READY = "ready"
"""(facts,): the workbench is set up; jobs may be sent."""
MADE = "made"
"""(result,): one of the job that was sent."""
DONE = "done"
"""(): the job that was sent is done."""
BROKEN = "broken"
"""(ChunkwireError,): the workbench cannot be set up; no worker will fare better."""

_PAUSE_S = 0.5
"""Signs of life are no more frequent, unless they ask for patience: a step takes 10 ms, telling it 0.1 ms."""


def worker_main(connection: Connection, workshop: Workshop, log: Path, threads: int) -> None:
    """Work on the jobs that arrive on `connection` until the parent is gone.

    Args:
        connection: to the parent.
        workshop: makes the workbench.
        log: receives everything that the simulator prints.
        threads: rendering threads of this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    _print_to(log)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # Read by Mesa and torch when they are loaded, which the workshop does.
    os.environ["LP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        bench = workshop.open(_SignsOfLife(connection))
    except ChunkwireError as error:
        connection.send((BROKEN, error))
        return
    connection.send((READY, bench.facts))
    while True:
        for result in bench.work(connection.recv()):
            connection.send((MADE, result))
        connection.send((DONE,))


class _SignsOfLife:
    """Tells the parent now and then."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = time.monotonic()
        self._patient = False

    def __call__(self, note: object = None, patience_s: float | None = None) -> None:
        due = time.monotonic() - self._last > _PAUSE_S
        if due or patience_s is not None or self._patient:
            self._last = time.monotonic()
            self._patient = patience_s is not None
            self._connection.send((ALIVE, note, patience_s))


def _print_to(log: Path) -> None:
    """Add the process's output, that of native libraries too, to a file."""
    with log.open("a") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
