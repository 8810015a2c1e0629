"""The address of a policy server, as people write it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from sim_client.errors import InvalidOption

__all__ = ["DEFAULT_PORT", "websocket_url"]

DEFAULT_PORT = 8000

_HTTP = {"http": "ws", "https": "wss"}


def websocket_url(address: str) -> str:
    """`host`, `host:port`, `ws://…`, `wss://…` or `http(s)://…` -> a full WebSocket URL.

    Without a port it is 8000, with TLS the usual 443.

    Raises:
        InvalidOption: it is none of these; names `--server`.
    """
    text = address.strip()
    parts = urlsplit(text if re.match(r"[a-z]+://", text, re.IGNORECASE) else f"ws://{text}")
    scheme = _HTTP.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss"):
        raise _refused(address, f"the scheme {parts.scheme!r} is not a WebSocket's")
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
    if port is None and scheme == "ws":
        port = DEFAULT_PORT
    return f"{scheme}://{netloc}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def _refused(address: str, reason: str) -> InvalidOption:
    return InvalidOption(
        f"--server {address!r} is not the address of a policy server: {reason}. "
        f"Write ws://HOST:PORT, wss://HOST:PORT or HOST:PORT, such as ws://127.0.0.1:{DEFAULT_PORT}.",
        field="--server",
    )
