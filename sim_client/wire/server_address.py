"""The addresses of policy servers, as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from sim_client.errors import InvalidOption

__all__ = ["DEFAULT_PORT", "is_grpc", "server_url", "server_urls"]

DEFAULT_PORT = 8000
"""Of the WebSocket; gRPC's is the next one."""

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss", "grpc": "grpc", "grpcs": "grpcs"}
_PORTS = {"ws": DEFAULT_PORT, "grpc": DEFAULT_PORT + 1, "grpcs": 443}


def server_urls(addresses: str | Sequence[str]) -> tuple[str, ...]:
    """One address, several with commas between them, or a list of them -> full URLs, each once.

    Raises:
        InvalidOption: there is none, or one is no address; names `--server`.
    """
    parts = addresses.split(",") if isinstance(addresses, str) else addresses
    urls = tuple(dict.fromkeys(map(server_url, parts)))
    if not urls:
        raise _refused("", "it names no host")
    return urls


def server_url(address: str) -> str:
    """`host`, `host:port`, `ws://…`, `wss://…`, `http(s)://…`, `grpc://…` or `grpcs://…` -> a full URL.

    Without a scheme it is a WebSocket's. Without a port it is 8000, gRPC's 8001, with TLS the usual 443.

    Raises:
        InvalidOption: it is none of these; names `--server`.
    """
    text = address.strip()
    parts = urlsplit(text if re.match(r"[a-z]+://", text, re.IGNORECASE) else f"ws://{text}")
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise _refused(address, f"the scheme {parts.scheme!r} is neither a WebSocket's nor gRPC's")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(address, str(error)) from error
    if not host or re.search(r"\s", host):
        raise _refused(address, "it names no host")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise _refused(address, f"{host!r} is no host name") from error
    netloc = f"[{host}]" if ":" in host else host
    port = _PORTS.get(scheme) if port is None else port
    path = "" if is_grpc(f"{scheme}://") else parts.path.rstrip("/")
    return f"{scheme}://{netloc}{'' if port is None else f':{port}'}{path}"


def is_grpc(url: str) -> bool:
    """Whether a full URL is gRPC's."""
    return url.startswith(("grpc://", "grpcs://"))


def _refused(address: str, reason: str) -> InvalidOption:
    return InvalidOption(
        f"--server {address!r} is not the address of a policy server: {reason}. "
        f"Write ws://HOST:PORT, wss://HOST:PORT, grpc://HOST:PORT, grpcs://HOST:PORT or HOST:PORT, such as "
        f"ws://127.0.0.1:{DEFAULT_PORT}; several with commas between them.",
        field="--server",
    )
