"""Flags of `serve` that say who may ask, how much, for how long, and what is logged. Defaults are `ServerOptions`'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from policy_server.log import LogFormat, LogLevel

ApiKeyFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="File of keys, one a line; clients must send one as 'Authorization: Api-Key KEY'.")
]
TlsCert: TypeAlias = Annotated[Path | None, typer.Option(help="Certificate chain (PEM): serve wss:// and https://.")]
TlsKey: TypeAlias = Annotated[Path | None, typer.Option(help="Its private key (PEM).")]
MaxMessageBytes: TypeAlias = Annotated[int, typer.Option(min=1024, help="Largest request in bytes.")]
MaxConnections: TypeAlias = Annotated[int, typer.Option(min=1, help="Clients that may be connected at once.")]
MaxWaiting: TypeAlias = Annotated[
    int,
    typer.Option(
        min=1,
        help="Rows that may be unanswered over all clients; more are answered 'overloaded'. One client may have half "
        "of them while others are connected, or one request of any size.",
    ),
]
MaxBatch: TypeAlias = Annotated[int, typer.Option(min=1, help="Most rows in one request.")]
MaxUnanswered: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Requests that one connection may have unanswered; the next is read after one is.")
]
DefaultDeadline: TypeAlias = Annotated[
    float, typer.Option(min=0.001, help="Seconds after which a request that names no deadline is dropped.")
]
MaxDeadline: TypeAlias = Annotated[float, typer.Option(min=0.001, help="Longest deadline in seconds; longer are cut.")]
ReadTimeout: TypeAlias = Annotated[
    float, typer.Option(min=0.001, help="Seconds after which a client that does not read its replies is cut off.")
]
IdleConnection: TypeAlias = Annotated[
    float, typer.Option(min=0, help="Seconds after which a client that asks nothing is hung up on; 0 never.")
]
IdleTimeout: TypeAlias = Annotated[
    float, typer.Option(min=0, help="Minutes without requests after which the server ends itself; 0 never.")
]
LogFormatFlag: TypeAlias = Annotated[LogFormat, typer.Option(help="Plain lines, or one JSON object a line.")]
LogLevelFlag: TypeAlias = Annotated[LogLevel, typer.Option(help="debug adds a line for every answered request.")]
