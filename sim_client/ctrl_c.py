"""Ctrl-C and SIGTERM, held off where they would end what is nearly done or is not theirs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["ignoring"]


@contextmanager
def ignoring(*numbers: signal.Signals) -> Iterator[None]:
    """Signals of these numbers have no effect meanwhile, on processes that are started neither.

    Only the main thread can do that; in another one nothing changes, and none of them would be interrupted.
    """
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
        yield
