"""What a client shows a server, and whom it trusts."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from sim_client.errors import InvalidOption

__all__ = ["Credentials"]


@dataclass(frozen=True)
class Credentials:
    """The same for WebSocket and gRPC."""

    api_key: str | None = None
    """Sent as `Authorization: Api-Key …`."""
    tls_ca: Path | None = None
    """PEM file of the certificates to trust for `wss` and `grpcs`. By default `SSL_CERT_FILE`'s, else the system's for
    `wss` and gRPC's own list for `grpcs`."""

    def __post_init__(self) -> None:
        """Raises `InvalidOption` when the file holds no certificate."""
        if self.tls_ca is None:
            return
        try:
            ssl.create_default_context(cafile=self.tls_ca)
        except ssl.SSLError as error:
            raise InvalidOption(f"--tls-ca {self.tls_ca} holds no certificate in PEM form.") from error
        except OSError as error:
            raise InvalidOption(f"--tls-ca {self.tls_ca} cannot be read: {error.strerror or error}.") from error

    @property
    def authorization(self) -> str | None:
        """Value of the header."""
        return f"Api-Key {self.api_key}" if self.api_key else None

    def websocket_context(self) -> ssl.SSLContext:
        """For `wss`."""
        return ssl.create_default_context(cafile=self.tls_ca)

    def grpc_credentials(self) -> grpc.ChannelCredentials:
        """For `grpcs`."""
        path = self.tls_ca or os.environ.get("SSL_CERT_FILE")
        return grpc.ssl_channel_credentials(Path(path).read_bytes() if path else None)
