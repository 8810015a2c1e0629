"""Commands on the engine, and the eval stack under one of the installed Composes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Stack", "composes", "free_port", "run", "wait_for"]

ROOT = Path(__file__).parents[2]


def run(*command: object, **options) -> subprocess.CompletedProcess[str]:
    """The command's output, or a failure that shows it."""
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert ended.returncode == 0, f"{command}:\n{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}"
    return ended


def composes() -> list[list[str]]:
    """Every Compose that is installed: v2, the plugin of the docker command, and the Python one."""
    found = []
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        found.append(["docker", "compose"])
    if shutil.which("docker-compose"):
        found.append(["docker-compose"])
    return found


@dataclass(frozen=True)
class Stack:
    """`docker compose` on the eval stack, with results in a folder of its own."""

    compose: list[str]
    environment: dict[str, str]

    @property
    def results(self) -> Path:
        return Path(self.environment["RESULTS"])

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [*self.compose, *map(str, arguments)]
        environment = {**os.environ, **self.environment}
        return subprocess.Popen(
            command, cwd=ROOT / "docker", env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, *arguments: object, seconds: float = 900.0) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return process.returncode, output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what: Callable[[], object], seconds: float, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)
