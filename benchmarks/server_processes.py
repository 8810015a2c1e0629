"""Server processes under test: started, waited for, weighed, ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Server", "free_port", "running", "serve_command"]

_HERE = Path(__file__).parent
_SCRIPTS = {path.name for path in _HERE.glob("server_*.py")}
_READY_S = 600


@dataclass(frozen=True)
class Server:
    """A process that answers on a port."""

    process: subprocess.Popen[bytes]
    port: int
    spawned: float
    """`time.perf_counter` when it was started."""

    @property
    def memory_mib(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    @property
    def processor_s(self) -> float:
        """Seconds of all processors until now, the user's and the system's."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name: str) -> float:
        """A number of the server's `/metrics`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))


def free_port() -> int:
    """A port that is free, and the one above it too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                two.bind(("127.0.0.1", port + 1))
                return port


def serve_command(port: int, *arguments: object) -> list[str]:
    """`serve` on a port."""
    return [str(Path(sys.executable).with_name("serve")), "--port", str(port), *map(str, arguments)]


@contextlib.contextmanager
def running(command: Sequence[object], port: int, *, ready: bool = False) -> Iterator[Server]:
    """Start a process and wait until its port is open, or with `ready` until its `/readyz` says so.

    A command that begins with a file name of this folder is run by this Python.
    """
    first, *rest = map(str, command)
    words = [sys.executable, str(_HERE / first), *rest] if first in _SCRIPTS else [first, *rest]
    environment = {**os.environ, "PYTHONPATH": str(_HERE)}
    spawned = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log, env=environment)
        try:
            _wait(process, port, ready, log)
            yield Server(process, port, spawned)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[bytes], port: int, ready: bool, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while not _answers(port, ready):
        if process.poll() is not None:
            log.seek(0)
            raise SystemExit(f"{process.args} ended at once:\n{log.read().decode()[-2000:]}")
        if time.monotonic() > deadline:
            raise SystemExit(f"{process.args} is not ready after {_READY_S} s.")
        time.sleep(0.02)


def _answers(port: int, ready: bool) -> bool:
    try:
        if ready:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as page:
                return bool(page.status == 200)
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except OSError:
        return False
    return True
