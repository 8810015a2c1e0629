"""The processes of a run, of which this is one: what they agree on, in which order they prepare, how they end."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import jax

from policy_protocol.errors import ChunkwireError
from training.exhaustion import explained
from training.parallel.failure_watch import FailureWatch
from training.parallel.noticeboard import Noticeboard

__all__ = ["ALONE", "EndedTogether", "ProcessLost", "Processes", "ProcessesDiffer"]


class EndedTogether(ChunkwireError):
    """An end that every process of a run comes to at the same step, so that none has to be told."""


class ProcessesDiffer(ChunkwireError):
    """The processes of one run were not started alike, or do not see the same files."""

    code = "processes_differ"


class ProcessLost(ChunkwireError):
    """What the processes compute together failed, most often because one of them is gone."""

    code = "process_lost"


class _Interrupted(ChunkwireError):
    """Ctrl-C before the first step, or a second one."""

    code = "interrupted"
    exit_code = 130


class Processes:
    """A context in which a run trains. An error that leaves it is printed and told to the other processes, and ends
    this one at once; alone, it goes on as any other.

    Args:
        index: of this process; process 0 writes what is written once.
        count: of the processes.
        board: where they leave notes; None for a process that is alone.
    """

    def __init__(self, index: int = 0, count: int = 1, board: Noticeboard | None = None) -> None:
        self.index, self.count, self._board = index, count, board
        self._turns = 0
        self._watch: FailureWatch | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files."""
        return self.index == 0

    def __enter__(self) -> Processes:
        if self._board is not None:
            self._watch = FailureWatch(self._board, self.index, self.count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is None:
            return
        if error is None or isinstance(error, EndedTogether):
            self._watch.close()
            jax.distributed.shutdown()
            return
        error = explained(error)
        if isinstance(error, jax.errors.JaxRuntimeError):
            error = _lost(error)
        if isinstance(error, KeyboardInterrupt):
            error = _Interrupted("interrupted; steps that were saved are kept.")
        if isinstance(error, ChunkwireError):
            print(f"train: {error.message}", file=sys.stderr)
        else:
            traceback.print_exception(error)
        self._watch.fail(str(error) or type(error).__name__, getattr(error, "exit_code", 1))

    def broadcast(self, text: str) -> str:
        """Process 0's text, in every process; the calls are counted, so all make the same ones."""
        if self._board is None:
            return text
        self._turns += 1
        if self.leads:
            self._board.pin(f"broadcast/{self._turns}", text)
            return text
        return self._board.wait(f"broadcast/{self._turns}")

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The others enter when process 0 has left: what it made on a disk that they share, they find."""
        if not self.leads:
            self.broadcast("")
        yield
        if self.leads:
            self.broadcast("")

    def meet(self) -> None:
        """Wait until every process has come here."""
        if self._board is None:
            return
        self._turns += 1
        self._board.pin(f"meet/{self._turns}/{self.index}", "")
        for index in range(self.count):
            self._board.wait(f"meet/{self._turns}/{index}")

    def require_same(self, settings: Mapping[str, Any]) -> None:
        """Compare what this process was started with, as flat JSON values, with process 0.

        Raises:
            ProcessesDiffer: they differ (names the settings).
        """
        before = json.loads(self.broadcast(json.dumps(settings)))
        now = json.loads(json.dumps(settings))
        different = [
            f"{name} is {now.get(name)} here and {before.get(name)} there"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if different:
            raise ProcessesDiffer(
                f"Process {self.index} was started otherwise than process 0: {'; '.join(different)}. "
                "Start all processes of a run with the same settings."
            )


ALONE = Processes()
"""A run in one process."""


def _lost(error: BaseException) -> ProcessLost:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return ProcessLost(
        f"The processes could not compute together ({reason}). Most often another one has died: its output says why. "
        "Start all of them again with --resume."
    )
