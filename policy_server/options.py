"""How a server runs: addresses, limits and shapes; each field is a flag of `serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policy_protocol.errors import ChunkwireError

__all__ = ["BATCH_SIZES", "OptionsInvalid", "ServerOptions"]

BATCH_SIZES = (1, 2, 4, 8)
"""Batch shapes compiled ahead; prefill is compute-bound, so throughput saturates near 8."""


class OptionsInvalid(ChunkwireError):
    """Flags of `serve` that cannot be, or cannot be together."""

    code = "invalid_option"
    exit_code = 2


@dataclass(frozen=True)
class ServerOptions:
    """Addresses and limits of one server process. Limits keep one client from taking the server from the others."""

    host: str = "127.0.0.1"
    port: int = 8000
    """WebSocket and HTTP; 0 takes a free one."""
    grpc: bool = True
    """Whether gRPC is served too."""
    grpc_port: int | None = None
    """0 takes a free one; None takes the one above `port`, or a free one when that is 0."""
    api_key_file: Path | None = None
    """Clients must send one of its keys; without it everyone who reaches the port is served."""
    tls_cert: Path | None = None
    """PEM file of the certificate and those that it rests on."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    max_message_bytes: int = 64 * 1024 * 1024
    """Largest request; a larger one is refused. A batch of 200 rows of two 224 x 224 images is 60 MB."""
    max_connections: int = 256
    """Clients at once; each costs at most a few unread requests of memory."""
    max_waiting: int = 1024
    """Rows that may be unanswered, over all clients; more are refused at once, with the time to ask again after."""
    max_batch: int = 1024
    """Most rows in one request."""
    max_unanswered: int = 64
    """Envelopes of one connection that may be unanswered; the next is read when one of them is. This bounds what a
    client that sends and never reads can make the server hold."""
    default_deadline_s: float = 300.0
    """A request that names no deadline is dropped when no device could start on it by then: its client has left."""
    max_deadline_s: float = 3600.0
    """Longest deadline that a request may name; a longer one is cut to it."""
    read_timeout_s: float = 30.0
    """A client that takes none of its reply for so long is cut off: it would hold up draining for ever."""
    idle_connection_s: float = 3600.0
    """A client that asks nothing for so long is hung up on; 0 never. An hour outlasts a coffee beside the robot."""
    idle_timeout_s: float = 0.0
    """The process ends itself when nobody asked for so long, so that a forgotten server frees its GPU; 0 never."""

    @property
    def grpc_listen_port(self) -> int:
        """The port of gRPC; 0 is any that is free."""
        if self.grpc_port is not None:
            return self.grpc_port
        return self.port + 1 if self.port else 0

    def __post_init__(self) -> None:
        if self.grpc and self.grpc_listen_port > 65535:
            raise OptionsInvalid("There is no port above --port 65535 for gRPC. Pass --grpc-port or --no-grpc.")
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("cert", "key") if self.tls_key is None else ("key", "cert")
            raise OptionsInvalid(f"--tls-{given} needs --tls-{missing}: TLS takes a certificate and its private key.")
        if self.max_batch > self.max_waiting:
            raise OptionsInvalid(
                f"--max-batch {self.max_batch} can never be served: only {self.max_waiting} rows may be unanswered. "
                "Raise --max-waiting or lower --max-batch."
            )
