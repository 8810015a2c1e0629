"""Clients of every protocol that `server.py` compares, as cheap as they can be: the same bytes again and again.

The client shares the machine with the server, so nothing is encoded or decoded while the clock runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import msgpack
import numpy as np
from websockets.asyncio.client import connect

from policy_protocol import InferRequest, pack, unpack
from policy_protocol.protobuf_messages import request_to_proto

__all__ = ["DIALS", "Ask", "Dial", "Load", "put_load", "timing_of"]

Ask: TypeAlias = Callable[[], Any]
"""An async function: send the request, return the reply's bytes."""
Dial: TypeAlias = Callable[[int, Mapping[str, Any]], AbstractAsyncContextManager[Ask]]
"""Port and observation -> how to ask."""
_LONGEST_S, _SILENCE_S = 3600.0, 120.0
"""A load that counts requests is given up after an hour; a server that answers nothing, after two minutes."""
_INFER = "/chunkwire.policy.v1.PolicyService/Infer"


@asynccontextmanager
async def _websocket(port: int, hello: list[bytes], greeted: bool, frame: bytes) -> AsyncIterator[Ask]:
    async with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, ping_interval=None) as socket:
        if greeted:
            await socket.recv()
        for message in hello:
            await socket.send(message)

        async def ask() -> Any:
            await socket.send(frame)
            return await socket.recv()

        yield ask


def _openpi(port: int, observation: Mapping[str, Any]) -> AbstractAsyncContextManager[Ask]:
    return _websocket(port, [], True, pack(observation))


def _envelope(port: int, observation: Mapping[str, Any]) -> AbstractAsyncContextManager[Ask]:
    return _websocket(port, [], True, pack(InferRequest(1, observation, noise_seed=1).to_wire()))


def _vla_eval(port: int, observation: Mapping[str, Any]) -> AbstractAsyncContextManager[Ask]:
    """Its messages, with raw images: PNG, its default, would cost it tens of milliseconds."""
    start = _vla_message("episode_start", {})
    return _websocket(port, [start], False, _vla_message("observation", dict(observation)))


def _vla_message(kind: str, payload: dict[str, Any]) -> bytes:
    def array(value: np.ndarray) -> dict[str, Any]:
        return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}

    message = {"type": kind, "payload": payload, "seq": 1, "timestamp": 0.0}
    return bytes(msgpack.packb(message, default=array))


@asynccontextmanager
async def _grpc(port: int, observation: Mapping[str, Any]) -> AsyncIterator[Ask]:
    message = request_to_proto(InferRequest(1, observation, noise_seed=1)).SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port + 1}", options) as channel:
        call = channel.unary_unary(_INFER)

        async def ask() -> Any:
            return await call(message)

        yield ask


@asynccontextmanager
async def _echo(port: int, observation: Mapping[str, Any]) -> AsyncIterator[Ask]:
    """As many bytes as an openpi request and its answer, over bare TCP."""
    question, answer = pack(observation), ECHO_ANSWER
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask() -> Any:
        writer.write(question)
        return await reader.readexactly(answer)

    yield ask
    writer.close()


ECHO_ANSWER = 1400
"""Bytes of an answer of (20, 7) float64 actions."""
DIALS: Mapping[str, Dial] = {
    "openpi": _openpi,
    "envelope": _envelope,
    "grpc": _grpc,
    "vla-eval": _vla_eval,
    "echo": _echo,
}


@dataclass(frozen=True)
class Load:
    """What one burst of clients has shown."""

    seconds: float
    round_trips: np.ndarray
    """Seconds of every answered request."""
    last: Any
    """The last reply."""

    @property
    def per_second(self) -> float:
        """Requests answered."""
        return len(self.round_trips) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """A quantile of the round trips in milliseconds."""
        return 1e3 * float(np.quantile(self.round_trips, share))


def put_load(
    dial: Dial, port: int, observation: Mapping[str, Any], clients: int, *, seconds: float = 1e9, requests: int = 10**9
) -> Load:
    """Clients that ask as fast as they are answered, until the time is over or enough was asked."""
    return asyncio.run(_put_load(dial, port, observation, clients, seconds, requests))


async def _put_load(
    dial: Dial, port: int, observation: Mapping[str, Any], clients: int, seconds: float, requests: int
) -> Load:
    times: list[float] = []
    state: dict[str, Any] = {"asked": 0, "last": None}
    start = asyncio.Barrier(clients)

    async def client() -> None:
        async with dial(port, observation) as ask:
            await ask()
            await start.wait()
            end = state.setdefault("began", time.perf_counter()) + seconds
            while time.perf_counter() < end and state["asked"] < requests:
                state["asked"] += 1
                begun = time.perf_counter()
                state["last"] = await ask()
                times.append(time.perf_counter() - begun)

    async with asyncio.timeout(min(seconds, _LONGEST_S) + _SILENCE_S), asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return Load(time.perf_counter() - state["began"], np.array(times), state["last"])


def timing_of(reply: bytes) -> Mapping[str, float]:
    """The server's own milliseconds in an openpi or envelope reply."""
    message = unpack(reply).value
    return dict(message.get("timing") or message.get("server_timing") or {})
