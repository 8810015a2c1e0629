"""The process that collects: it owns one simulator and one planner, and tells the parent what became of each seed.

Messages to the parent are tuples that begin with one of `ALIVE`, `READY`, `KEPT`, `FAILED`, `BROKEN`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from policy_protocol.errors import ChunkwireError
from sim_client.collect.parts import SimulatorDescription
from sim_client.collect.request import CollectionRequest
from sim_client.collect.trajectories import Episode, write_episode
from sim_client.errors import CollectionError, PlanningFailed

if TYPE_CHECKING:
    from sim_client.simulator import Planner, Simulator

__all__ = ["ALIVE", "BROKEN", "FAILED", "KEPT", "READY", "worker_main"]

ALIVE = "alive"
"""(): a sign of life."""
READY = "ready"
"""(SimulatorDescription,): the simulator is up; seeds may be sent."""
KEPT = "kept"
"""(): the demonstration of the seed that was sent is on disk."""
FAILED = "failed"
"""(reason,): the seed that was sent gives none."""
BROKEN = "broken"
"""(ChunkwireError,): the simulator cannot be set up or the file not be written; no worker will fare better."""

_SIGN_OF_LIFE_SECONDS = 2.0


def worker_main(connection: Connection, request: CollectionRequest, directory: Path, log: Path, threads: int) -> None:
    """Collect the seeds that arrive on `connection` until None arrives or the parent is gone.

    Args:
        connection: to the parent.
        request: what to collect.
        directory: where the demonstrations go, by `write_episode`.
        log: receives everything that the simulator and the planner print.
        threads: rendering threads of this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    _print_to(log)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ["LP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    # Imported here, after the number of threads is set: it loads the simulator.
    from sim_client.simulator import Planner, Simulator

    try:
        simulator, planner = Simulator(request.settings()), Planner(request.settings())
    except ChunkwireError as error:
        connection.send((BROKEN, error))
    else:
        connection.send((READY, _describe(simulator)))
        _serve(connection, simulator, planner, request.frame_stride, directory)


def _serve(connection: Connection, simulator: Simulator, planner: Planner, frame_stride: int, directory: Path) -> None:
    """Answer seeds. A simulator that breaks ends the process: its seed is tried again in another."""
    from sim_client.collect.attempt import attempt

    alive = _Heartbeat(connection)
    while (seed := connection.recv()) is not None:
        try:
            episode = attempt(simulator, planner, seed, frame_stride, alive)
        except PlanningFailed as failure:
            connection.send((FAILED, failure.message))
        else:
            connection.send(_store(directory / f"seed_{seed}.h5", episode))


def _store(path: Path, episode: Episode) -> tuple[str] | tuple[str, ChunkwireError]:
    try:
        write_episode(path, episode)
    except (OSError, RuntimeError) as error:  # h5py's closing of a file raises the latter on a full disk
        reason = getattr(error, "strerror", None) or error
        return BROKEN, CollectionError(
            f"The demonstration {path} cannot be written: {reason}. The ones before it are kept; make room and run "
            "the same command again, or pass another --out."
        )
    return (KEPT,)


def _describe(simulator: Simulator) -> SimulatorDescription:
    return SimulatorDescription(
        cameras=simulator.cameras,
        action_low=tuple(simulator.action_low.tolist()),
        action_high=tuple(simulator.action_high.tolist()),
        state_sources=dict(simulator.state_sources),
    )


class _Heartbeat:
    """A sign of life at most every two seconds, given by the work itself: a native call that hangs gives none."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > _SIGN_OF_LIFE_SECONDS:
            self._last = time.monotonic()
            self._connection.send((ALIVE,))


def _print_to(log: Path) -> None:
    """Send the process's output, that of native libraries too, to a file."""
    with log.open("w") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
