"""How a server runs: addresses, limits and shapes; each field is a flag of `serve`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BATCH_SIZES", "ServerOptions"]

BATCH_SIZES = (1, 2, 4, 8)
"""Batch shapes compiled ahead; prefill is compute-bound, so throughput saturates near 8."""


@dataclass(frozen=True)
class ServerOptions:
    """Addresses and limits of one server process."""

    host: str = "127.0.0.1"
    port: int = 8000
    """WebSocket and HTTP; 0 takes a free one."""
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    max_message_bytes: int = 64 * 1024 * 1024
    """Largest request; a larger one is refused."""
    max_waiting: int = 1024
    """Rows that may wait for the device; more are refused at once."""
    max_batch: int = 1024
    """Most rows in one request."""
