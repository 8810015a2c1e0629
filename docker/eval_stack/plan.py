"""The containers that measure a matrix, in the order in which they start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval_stack.checkpoint import Checkpoint
from eval_stack.container_plan import ContainerPlan, Mount, user_for
from eval_stack.images import Image
from eval_stack.matrix import Matrix

__all__ = ["Devices", "Plan", "StackPlan", "plan_of"]

_ALIAS = "policy-server"
_SERVER = f"ws://{_ALIAS}:8000"
_CONNECT_TIMEOUT_S = 600
"""A server that died is started again and loads its programs meanwhile; its clients wait."""


@dataclass(frozen=True)
class Devices:
    """Indices of the NVIDIA GPUs; both empty for none."""

    server: str = ""
    sim: str = ""


@dataclass(frozen=True)
class StackPlan:
    """One checkpoint's containers, in a network of their own."""

    checkpoint: Checkpoint
    network: str
    server: ContainerPlan
    clients: tuple[ContainerPlan, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that is done for a matrix."""

    matrix: Matrix
    images: tuple[Image, Image]
    stacks: tuple[StackPlan, ...]
    """One after the other."""
    run: str
    """Its id, in the names of all containers."""

    def report(self, arguments: Sequence[str]) -> ContainerPlan:
        """A verb of sim-client that reads results, which lie under /results as under `--out`."""
        out = self.matrix.out
        return ContainerPlan(
            role="report",
            name=f"chunkwire-{self.run}-report",
            image=self.images[1].name,
            program="sim-client",
            arguments=tuple(arguments),
            user=user_for(out),
            mounts=(Mount(str(out), "/results", writable=True),),
        )

    def report_of(self, checkpoint: Checkpoint, task: str) -> ContainerPlan:
        """Prints the numbers of one checkpoint on one task as JSON."""
        return self.report(("report", f"/results/{checkpoint.name}/{task}", "--json"))

    def comparison(self, checkpoints: Sequence[Checkpoint]) -> ContainerPlan:
        """Writes `comparison.md`, and prints it as JSON."""
        folders = [f"/results/{checkpoint.name}" for checkpoint in checkpoints]
        return self.report(("compare", *folders, "--out", "/results/comparison.md", "--json"))


def plan_of(matrix: Matrix, images: tuple[Image, Image], devices: Devices, run: str) -> Plan:
    """Plan the matrix.

    Args:
        images: the server's and the simulator's.
        run: id of this run, for the names.
    """
    stacks = tuple(_stack(matrix, checkpoint, images, devices, run) for checkpoint in matrix.checkpoints)
    return Plan(matrix, images, stacks, run)


def _stack(
    matrix: Matrix, checkpoint: Checkpoint, images: tuple[Image, Image], devices: Devices, run: str
) -> StackPlan:
    name = f"chunkwire-{run}-{checkpoint.name}"
    server, sim = (image.name for image in images)
    return StackPlan(
        checkpoint,
        name,
        _server(matrix, checkpoint, name, server, devices.server),
        tuple(_client(matrix, checkpoint, name, sim, devices.sim, number + 1) for number in range(matrix.sims)),
    )


def _server(matrix: Matrix, checkpoint: Checkpoint, network: str, image: str, gpu: str) -> ContainerPlan:
    user = user_for(checkpoint.directory)
    # Compiled programs are unpickled: no user takes another's.
    cache = Mount(f"chunkwire-cache-{user.partition(':')[0]}", "/cache", writable=True)
    return ContainerPlan(
        role="server",
        name=f"{network}-server",
        image=image,
        program="serve",
        arguments=("--host", "0.0.0.0", "--checkpoint", "/checkpoint", *matrix.serve_args),
        user=user,
        mounts=(Mount(str(checkpoint.directory), "/checkpoint"), cache),
        network=network,
        alias=_ALIAS,
        gpu=gpu,
    )


def _client(matrix: Matrix, checkpoint: Checkpoint, network: str, image: str, gpu: str, number: int) -> ContainerPlan:
    folder = Path("/results") / checkpoint.name
    # Several tasks each get a folder in --out; the only one gets --out itself.
    out = folder if len(matrix.tasks) > 1 else folder / matrix.tasks[0]
    arguments = {
        "--env": ",".join(matrix.tasks),
        "--episodes": matrix.episodes,
        "--seed": matrix.seed,
        "--server": _SERVER,
        "--connect-timeout": _CONNECT_TIMEOUT_S,
        "--render-backend": "gpu" if gpu else "cpu",
        "--out": out,
    }
    flags = [str(part) for pair in arguments.items() for part in pair]
    return ContainerPlan(
        role="sim",
        name=f"{network}-sim-{number}",
        image=image,
        program="sim-client",
        arguments=(*flags, "--share", *matrix.sim_args),
        user=user_for(matrix.out),
        mounts=(Mount(str(matrix.out / checkpoint.name), str(folder), writable=True),),
        network=network,
        gpu=gpu,
    )
