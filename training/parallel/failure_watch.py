"""The end of all processes of a run when one of them fails: the others would wait for it in their next sum."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import NoReturn

from training.parallel.noticeboard import Noticeboard

__all__ = ["FailureWatch"]

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 5.0
"""What a process gets to come to an end of its own after another has failed: often the same error."""
_LINGER_SECONDS = 15.0
"""How long process 0, which holds the noticeboard, waits for the others to have read it."""


class FailureWatch:
    """Looks for failures of the other processes in a thread, and ends this process when there is one.

    Args:
        board: where failures are told.
        index: of this process.
        count: of the processes.
    """

    def __init__(self, board: Noticeboard, index: int, count: int) -> None:
        self._board, self._index, self._count = board, index, count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="failure-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """This process has come to its end; the thread no longer ends it."""
        self._ended.set()
        self._thread.join()

    def fail(self, message: str, code: int) -> NoReturn:
        """Tell the others why this process fails, and end it. Python's own end would wait for threads that wait for the
        others, and jax's for the others to leave its service in order: they will not."""
        self._ended.set()
        try:
            self._board.pin(f"failed/{self._index}", message)
            self._leave()
        finally:  # without the board, too: then process 0 is gone
            _exit(code)

    def _run(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            failed = self._board.under("failed")
            if failed and not self._ended.wait(_GRACE_SECONDS):
                index, message = min(failed.items(), key=lambda item: int(item[0]))
                print(f"train: process {index} failed, so this one ends too: {message}", file=sys.stderr)
                self._leave()
                _exit(1)

    def _leave(self) -> None:
        self._board.pin(f"left/{self._index}", "")
        until = time.monotonic() + _LINGER_SECONDS
        while self._index == 0 and len(self._board.under("left")) < self._count and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
