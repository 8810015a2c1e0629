"""`serve bench`: how fast a running server answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from policy_server.bench.load import Load, Measurements  # loaded when it is asked for: every `serve` comes by here

__all__ = ["bench_command"]

_RECENT = 500
"""Replies that the live median is of."""
_REFRESH_S = 0.2


def bench_command(
    url: Annotated[str, typer.Argument(metavar="URL", help="ws://HOST:PORT, wss://…, grpc://… or grpcs://….")],
    clients: Annotated[int, typer.Option(min=1, help="Connections, each with one question at a time.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to ask.")] = 10.0,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Requests of all clients together, in place of --seconds.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Rows of each request. Default: requests without a batch.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the API key.", exists=True, dir_okay=False)
    ] = None,
    connect_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for a server that still compiles.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Ask a running server random questions made from its spec; print throughput, latency and errors.

    Ends with 1 when not a single request was answered with actions.
    """
    from policy_server.bench.load import Load, put_load
    from policy_server.bench.report import report, summary

    load = Load(url, clients, batch, seconds, requests, _key(api_key_file), connect_timeout)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        measured = _first_error(lambda: asyncio.run(put_load(load, _live(progress, load))))
    facts = summary(load, measured)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        Console(highlight=False).print(report(facts))
    if not measured.answered:
        raise typer.Exit(1)


def _first_error(run: Callable[[], Measurements]) -> Measurements:
    """When the clients fail, they fail alike: one of them speaks for all."""
    try:
        return run()
    except* Exception as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _key(path: Path | None) -> str | None:
    lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if path is not None and not keys:
        raise typer.BadParameter(f"{path} holds no key.", param_hint="--api-key-file")
    return keys[0] if keys else None


def _live(progress: Progress, load: Load) -> Callable[[Measurements], None]:
    task = progress.add_task("connecting", total=load.requests or load.seconds)
    shown = 0.0

    def show(measured: Measurements) -> None:
        nonlocal shown
        if measured.seconds - shown < _REFRESH_S:
            return
        shown, recent = measured.seconds, measured.round_trip[-_RECENT:]
        median = f", median {np.median(recent):.1f} ms" if recent else ""
        errors = f", {measured.errors.total()} errors" if measured.errors else ""
        progress.update(
            task,
            completed=measured.done if load.requests else measured.seconds,
            description=f"{measured.answered / max(measured.seconds, 1e-9):,.1f} requests/s{median}{errors}",
        )

    return show
