"""The server's log: one plain line an event, on standard error."""

from __future__ import annotations

import logging
import sys

__all__ = ["log", "show_log"]

log = logging.getLogger("policy_server")


def show_log() -> None:
    """Write the server's log to standard error, and keep the libraries quiet below warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
