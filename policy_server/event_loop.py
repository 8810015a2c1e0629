"""The event loop that everything but computing runs on, and what keeps its pauses short.

`/healthz` and every client's messages wait while something else holds the interpreter.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

__all__ = ["run_event_loop", "spare_what_stays"]

_SWITCH_S = 0.5e-3
"""After so long a thread that prepares images lets the event loop go on, in place of Python's 5 ms. Where two of them
are at work, one may be let on before the loop, again and again: it was measured to wait 30 ms, and 3 with this."""


def run_event_loop(main: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, on libuv, whose way from a device's thread to the loop is shorter."""
    sys.setswitchinterval(_SWITCH_S)
    uvloop.run(main)


def spare_what_stays() -> None:
    """Keep the garbage collector from what is loaded by now. It stays as long as the process, and with jax to look
    through it takes a tenth of a second, in which nothing is answered."""
    gc.collect()
    gc.freeze()
