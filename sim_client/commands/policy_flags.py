"""Flags that say where the policy is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sim_client.errors import InvalidOption
from sim_client.evaluation.dial import Dial

__all__ = ["PolicyFlags"]


@dataclass(frozen=True)
class PolicyFlags:
    """A server, its terms, and how patient to be."""

    server: Annotated[
        str,
        typer.Option(
            metavar="URL[,URL…]",
            help="Policy server, ws://, wss://, grpc:// or grpcs://; several of one policy take turns.",
        ),
    ] = "ws://127.0.0.1:8000"
    connect_timeout: Annotated[float, typer.Option(help="Seconds to wait for a server that does not answer.")] = 30.0
    reply_timeout: Annotated[float, typer.Option(help="Seconds after which a silent server counts as lost.")] = 300.0
    api_key_file: Annotated[Path | None, typer.Option(help="File whose first line is the server's API key.")] = None
    tls_ca: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) to trust for wss:// and grpcs://, instead of the system's.")
    ] = None

    def dial(self) -> Dial:
        """How to reach the policy. Raises `InvalidOption` for a key file that holds none."""
        return Dial(self.server, self.connect_timeout, self.reply_timeout, _read_key(self.api_key_file), self.tls_ca)


def _read_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        key = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise InvalidOption(f"--api-key-file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InvalidOption(f"--api-key-file {path} is no text file; its first line must hold the key.") from error
    if not key:
        raise InvalidOption(f"--api-key-file {path} has an empty first line; it must hold the key.")
    if not (key.isascii() and key.isprintable()):
        raise InvalidOption(f"--api-key-file {path}: its first line holds characters that no key has.")
    return key
