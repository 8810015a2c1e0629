"""A server in openpi's shape, for comparison: inference inside the event loop, one request at a time.

    python benchmarks/server_openpi_shaped.py PORT --base-ms 13 --row-ms 1.3
    python benchmarks/server_openpi_shaped.py PORT --checkpoint …/29999

While a request computes, nothing else is received or answered. Messages are openpi's own, by its client's package.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from openpi_client import msgpack_numpy
from server_fixed_cost import cost_s
from websockets.asyncio.server import ServerConnection, serve

_ACTIONS = np.zeros((20, 7))


def fixed_cost(base_ms: float, row_ms: float) -> Callable[[Any], np.ndarray]:
    """Sleeps as long as the device takes for one row."""

    def infer(observation: Any) -> np.ndarray:
        time.sleep(cost_s(1, base_ms, row_ms))
        return _ACTIONS

    return infer


def model(checkpoint: Path, spec: str | None, tokenizer: str | None) -> Callable[[Any], np.ndarray]:
    """Our policy, so that both servers compute the same; compiled before the port opens."""
    from training.pi05.compile_cache import use_compile_cache
    from training.pi05.load import load_policy

    use_compile_cache()
    policy = load_policy(checkpoint, spec=spec, tokenizer=tokenizer)
    for length in policy.prompt_lengths:
        policy.compile(1, length)
    return lambda observation: policy(observation).actions


async def run(port: int, infer: Callable[[Any], np.ndarray]) -> None:
    """Serve until the process is ended."""

    async def handler(connection: ServerConnection) -> None:
        packer = msgpack_numpy.Packer()
        await connection.send(packer.pack({}))
        async for frame in connection:
            begun = time.monotonic()
            actions = infer(msgpack_numpy.unpackb(frame))
            timing = {"infer_ms": (time.monotonic() - begun) * 1e3}
            await connection.send(packer.pack({"actions": actions, "server_timing": timing}))

    async with serve(handler, "127.0.0.1", port, compression=None, max_size=None):
        await asyncio.get_running_loop().create_future()


def main(
    port: int,
    base_ms: Annotated[float, typer.Option(help="Milliseconds of a batch.")] = 0.0,
    row_ms: Annotated[float, typer.Option(help="Milliseconds for each of its rows.")] = 0.0,
    checkpoint: Annotated[Path | None, typer.Option(help="Serve this instead.")] = None,
    spec: Annotated[str | None, typer.Option(help="As for `serve`.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="As for `serve`.")] = None,
) -> None:
    """Serve on PORT."""
    infer = fixed_cost(base_ms, row_ms) if checkpoint is None else model(checkpoint, spec, tokenizer)
    asyncio.run(run(port, infer))


if __name__ == "__main__":
    typer.run(main)
