"""Goals 3, 4 and 5: many clients on one server, the overhead beside the model, and restarting.

    python benchmarks/server.py [--part throughput,images,model,overhead,restart,memory] [--peer-python PYTHON]

Goal 3: 16 clients get at least 3 times what a server in openpi's shape gives, and 1.5 times a batching peer's
(vla-eval 0.8.0, when --peer-python names a Python that has it), around a policy of the same fixed cost.
Goal 4: a request of 301 KB costs at most 1.0 ms beside the model. Goal 5: a restart with a warm compile cache
answers within 10 s, and nothing compiles under random batch sizes. Memory after 10,000 requests is printed. The part
images compares pixels with JPEG on one machine, where bytes cost little: JPEG is for slow networks.

Servers are processes of their own, all up at once, and take turns: A B C A B C …
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from server_clients import DIALS, ECHO_ANSWER, Load, put_load, timing_of
from server_fixed_cost import fixed_cost_spec
from server_processes import Server, free_port, running, serve_command
from websockets.sync.client import connect

from policy_protocol import InferReply, InferRequest, PolicySpec, pack, unpack
from policy_server.bench.questions import random_observations
from sim_client.wire.jpeg import with_jpeg

_DATA = Path(__file__).parents[1] / "tests/data/openpi"
_MAX_BATCH = 8
console = Console(width=140, highlight=False)


@dataclass(frozen=True)
class Contestant:
    """A server, and how it is asked."""

    name: str
    dial: str
    server: Server
    observation: Mapping[str, Any] | None = None
    """What it is asked with, where that is its own."""


@dataclass(frozen=True)
class Setting:
    """What the command line says."""

    rounds: int
    seconds: float
    clients: tuple[int, ...]
    base_ms: float
    row_ms: float
    peer_python: str | None
    checkpoint: Path
    spec: str | None
    tokenizer: str | None
    requests: int

    @property
    def checkpoint_flags(self) -> list[str]:
        """For `serve` and for the server in openpi's shape."""
        flags = ["--checkpoint", str(self.checkpoint)]
        flags += [] if self.spec is None else ["--spec", self.spec]
        return flags + ([] if self.tokenizer is None else ["--tokenizer", self.tokenizer])


def compare(contestants: Sequence[Contestant], observation: Mapping[str, Any], setting: Setting, title: str) -> None:
    """Requests a second and median round trip of every contestant, for every number of clients."""
    console.print(f"[dim]{time.strftime('%X')} {title}[/dim]")
    table = Table("clients", *(contestant.name for contestant in contestants), title=title)
    for clients in setting.clients:
        loads: dict[str, list[Load]] = {contestant.name: [] for contestant in contestants}
        for _ in range(setting.rounds):
            for contestant in contestants:
                dial, port = DIALS[contestant.dial], contestant.server.port
                asked = observation if contestant.observation is None else contestant.observation
                loads[contestant.name].append(put_load(dial, port, asked, clients, seconds=setting.seconds))
        rates = {name: float(np.median([load.per_second for load in each])) for name, each in loads.items()}
        table.add_row(str(clients), *(_cell(loads[name], rate, rates) for name, rate in rates.items()))
    console.print(table)
    console.print("requests/s, p50 and p99 in ms, and how many times the first column; medians of the rounds\n")


def _cell(loads: Sequence[Load], rate: float, rates: Mapping[str, float]) -> str:
    p50, p99 = (float(np.median([load.quantile_ms(share) for load in loads])) for share in (0.5, 0.99))
    return f"{rate:7.1f}  {p50:6.1f} {p99:6.1f}  {rate / next(iter(rates.values())):5.2f}x"


def throughput(setting: Setting) -> None:
    """Goal 3 around a fixed cost, for one and two cameras."""
    for cameras in (1, 2):
        cost = ["--base-ms", setting.base_ms, "--row-ms", setting.row_ms]
        with contextlib.ExitStack() as stack:
            ports = [free_port() for _ in range(3)]
            openpi = stack.enter_context(running(["server_openpi_shaped.py", ports[0], *cost], ports[0]))
            command = ["server_fixed_cost.py", ports[1], *cost, "--cameras", cameras]
            ours = stack.enter_context(running(command, ports[1], ready=True))
            contestants = [Contestant("openpi's shape", "openpi", openpi)]
            if setting.peer_python is not None:
                contestants.append(Contestant("vla-eval", "vla-eval", _peer(stack, setting, ports[2])))
            contestants.append(Contestant("ours, openpi's protocol", "openpi", ours))
            contestants.append(Contestant("ours, envelopes", "envelope", ours))
            contestants.append(Contestant("ours, gRPC", "grpc", ours))
            observation = random_observations(fixed_cost_spec(cameras), None, 1)[0]
            title = f"{setting.base_ms:g} ms a batch and {setting.row_ms:g} ms a row, {cameras} x 224 x 224 uint8"
            compare(contestants, observation, setting, title)


def _peer(stack: contextlib.ExitStack, setting: Setting, port: int) -> Server:
    script = Path(__file__).with_name("server_vla_eval.py")
    costs = (setting.base_ms, setting.row_ms, _MAX_BATCH)
    assert setting.peer_python is not None
    return stack.enter_context(running([setting.peer_python, script, port, *costs], port))


def images(setting: Setting) -> None:
    """Pixels against JPEG, over both transports: what decoding costs the server, and the bytes it saves."""
    spec, port = fixed_cost_spec(2), free_port()
    pixels = {**random_observations(spec, None, 1)[0], **{camera.key: _scene() for camera in spec.observation.cameras}}
    jpeg = with_jpeg(pixels, spec, _JPEG_QUALITY, batched=False)
    command = ["server_fixed_cost.py", port, "--base-ms", setting.base_ms, "--row-ms", setting.row_ms]
    with running(command, port, ready=True) as ours:
        contestants = [
            Contestant(f"{name}, {kind}", dial, ours, observation)
            for name, dial in (("envelopes", "envelope"), ("gRPC", "grpc"))
            for kind, observation in (("pixels", pixels), (f"JPEG {_JPEG_QUALITY}", jpeg))
        ]
        sizes = " against ".join(f"{len(pack(observation)) / 1e3:.0f} KB" for observation in (pixels, jpeg))
        title = f"{sizes}, {setting.base_ms:g} ms a batch and {setting.row_ms:g} ms a row, 2 x 224 x 224"
        compare(contestants, pixels, setting, title)


_JPEG_QUALITY = 90


def _scene(side: int = 224) -> np.ndarray:
    """A table with blocks and a little camera noise: as hard to compress as what a simulator renders, or harder."""
    draw, image = np.random.default_rng(0), np.full((side, side, 3), 140.0)
    image += np.linspace(-40, 40, side)[:, None, None]
    for _ in range(12):
        top, left, size = draw.integers(0, side - 40), draw.integers(0, side - 40), draw.integers(10, 40)
        image[top : top + size, left : left + size] = draw.uniform(0, 255, 3)
    return np.uint8(np.clip(image + draw.normal(0, 2, image.shape), 0, 255))


def model(setting: Setting) -> None:
    """The same around a real Pi0.5."""
    ports = [free_port() for _ in range(2)]
    with (
        running(["server_openpi_shaped.py", ports[0], *setting.checkpoint_flags], ports[0]) as openpi,
        running(serve_command(ports[1], *setting.checkpoint_flags), ports[1], ready=True) as ours,
    ):
        contestants = [
            Contestant("openpi's shape", "openpi", openpi),
            Contestant("ours, openpi's protocol", "openpi", ours),
            Contestant("ours, envelopes", "envelope", ours),
            Contestant("ours, gRPC", "grpc", ours),
        ]
        observation = random_observations(_spec_of(ours), None, 1)[0]
        compare(contestants, observation, setting, f"{setting.checkpoint}, same weights")


def overhead(setting: Setting) -> None:
    """Goal 4: one client, a policy that returns at once; what the server itself says it computed is taken off."""
    ports, observation = [free_port() for _ in range(3)], random_observations(fixed_cost_spec(2), None, 1)[0]
    size = len(pack(observation))
    with contextlib.ExitStack() as stack:
        echo = stack.enter_context(running(["server_echo.py", ports[0], size, ECHO_ANSWER], ports[0]))
        openpi = stack.enter_context(running(["server_openpi_shaped.py", ports[1]], ports[1]))
        ours = stack.enter_context(running(["server_fixed_cost.py", ports[2]], ports[2], ready=True))
        contestants = [
            Contestant("bare TCP", "echo", echo),
            Contestant("openpi's shape", "openpi", openpi),
            Contestant("ours, openpi's protocol", "openpi", ours),
            Contestant("ours, envelopes", "envelope", ours),
            Contestant("ours, gRPC", "grpc", ours),
        ]
        times: dict[str, list[np.ndarray]] = {contestant.name: [] for contestant in contestants}
        for _ in range(setting.rounds):
            for contestant in contestants:
                load = put_load(DIALS[contestant.dial], contestant.server.port, observation, 1, seconds=setting.seconds)
                computing = timing_of(load.last).get("infer_ms", 0.0) if contestant.dial in _TIMED else 0.0
                times[contestant.name].append(1e3 * load.round_trips - computing)
    table = Table("server", "p50 ms", "p99 ms", title=f"beside the model, one client, {size / 1e3:.0f} KB (goal: 1.0)")
    for name, each in times.items():
        table.add_row(name, *(f"{np.median([np.quantile(part, share) for part in each]):.2f}" for share in (0.5, 0.99)))
    console.print(table)


_TIMED = ("openpi", "envelope")


def restart(setting: Setting) -> None:
    """Goal 5: from the start of the process to the first action, without and with a compile cache."""
    columns = ("start", "first action after s", "processor s", "load of the machine", "programs")
    table = Table(*columns, title=f"{setting.checkpoint} (goal: 10 s, 0 compiled later)")
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm", "warm again"):
            port = free_port()
            with running(serve_command(port, *setting.checkpoint_flags, "--compile-cache", cache), port) as server:
                seconds = _first_action(server) - server.spawned
                used, load = server.processor_s, os.getloadavg()[0]
                before = server.metric("chunkwire_compiled_programs")
                asked = _random_batches(server)
                later = server.metric("chunkwire_compiled_programs") - before
                counted = f"{before:.0f}, and {later:.0f} more in {asked} requests of 1 to 20 rows"
                table.add_row(name, f"{seconds:.1f}", f"{used:.1f}", f"{load:.1f}", counted)
        console.print(table)
        console.print(_phases(setting, cache))


def _phases(setting: Setting, cache: str) -> Table:
    """Where the time of a warm start goes."""
    words = [sys.executable, str(Path(__file__).with_name("server_start.py"))]
    words += [*setting.checkpoint_flags, "--compile-cache", cache]
    phases = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    table = Table("a warm start", "s", "processor s", title="where its time goes")
    for name, seconds in phases.items():
        table.add_row(name, *(f"{each:.2f}" for each in seconds))
    return table


def _first_action(server: Server) -> float:
    """The moment of the first answer; the greeting comes when every shape is compiled."""
    with connect(f"ws://127.0.0.1:{server.port}", compression=None, max_size=None, open_timeout=600) as socket:
        spec = PolicySpec.from_wire(unpack(socket.recv(timeout=600)).value["policy_spec"])
        socket.send(pack(random_observations(spec, None, 1)[0]))
        socket.recv(timeout=600)
    return time.perf_counter()


def _random_batches(server: Server, requests: int = 40) -> int:
    spec, draw = _spec_of(server), np.random.default_rng(0)
    with connect(f"ws://127.0.0.1:{server.port}", compression=None, max_size=None) as socket:
        socket.recv(timeout=60)
        for number in range(requests):
            batch = int(draw.integers(1, 21))
            request = InferRequest(number, random_observations(spec, batch, 1)[0], noise_seed=number, batch=batch)
            socket.send(pack(request.to_wire()))
            reply = InferReply.from_wire(unpack(socket.recv(timeout=120)).value)
            assert reply.chunk is not None, reply.error
    return requests


def memory(setting: Setting) -> None:
    """Resident memory of the server as requests come, over each transport."""
    observation = random_observations(fixed_cost_spec(2), None, 1)[0]
    marks = [round(setting.requests * share) for share in (0.1, 0.25, 0.5, 0.75, 1.0)]
    table = Table("MiB after requests", *(f"{mark:,}" for mark in marks), title="memory, 8 clients, 301 KB")
    for name in ("openpi", "grpc"):
        port = free_port()
        with running(["server_fixed_cost.py", port], port, ready=True) as server:
            cells, done = [], 0
            for mark in marks:
                put_load(DIALS[name], port, observation, 8, requests=mark - done)
                done = mark
                cells.append(f"{server.memory_mib:.1f}")
        table.add_row("ours, openpi's protocol" if name == "openpi" else "ours, gRPC", *cells)
    console.print(table)


def _spec_of(server: Server) -> PolicySpec:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/spec", timeout=10) as page:
        return PolicySpec.from_wire(json.loads(page.read()))


_PARTS = {
    "throughput": throughput,
    "images": images,
    "model": model,
    "overhead": overhead,
    "restart": restart,
    "memory": memory,
}


def main(
    part: Annotated[str, typer.Option(help=f"Parts, separated by commas: {', '.join(_PARTS)}.")] = ",".join(_PARTS),
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 5,
    seconds: Annotated[float, typer.Option(help="Seconds of each burst.")] = 2.0,
    clients: Annotated[str, typer.Option(help="Numbers of clients, separated by commas.")] = "1,4,16,64",
    base_ms: Annotated[float, typer.Option(help="Fixed cost of a batch: about Pi0.5's on an H100.")] = 13.0,
    row_ms: Annotated[float, typer.Option(help="Fixed cost of each row of a batch.")] = 1.3,
    peer_python: Annotated[str | None, typer.Option(help="Python of an environment with vla-eval 0.8.0.")] = None,
    checkpoint: Annotated[Path, typer.Option(help="Step directory for the parts model and restart.")] = (
        _DATA / "checkpoints/tiny_pi05/100"
    ),
    spec: Annotated[str | None, typer.Option(help="As for `serve`.")] = "pi05_libero",
    tokenizer: Annotated[str | None, typer.Option(help="As for `serve`.")] = str(_DATA / "tiny_tokenizer.model"),
    requests: Annotated[int, typer.Option(help="Requests of the part memory.")] = 10_000,
) -> None:
    """Print one table for each part. Pass --spec '' --tokenizer '' for a checkpoint that brings its own."""
    parts = part.split(",")
    if unknown := set(parts) - set(_PARTS):
        raise typer.BadParameter(f"no such part: {', '.join(sorted(unknown))}", param_hint="--part")
    numbers = tuple(int(text) for text in clients.split(","))
    setting = Setting(
        rounds=rounds,
        seconds=seconds,
        clients=numbers,
        base_ms=base_ms,
        row_ms=row_ms,
        peer_python=peer_python,
        checkpoint=checkpoint,
        spec=spec or None,
        tokenizer=tokenizer or None,
        requests=requests,
    )
    for name in parts:
        _PARTS[name](setting)


if __name__ == "__main__":
    typer.run(main)
