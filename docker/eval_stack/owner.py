"""Whose a container is: labels that tell a leftover from what a living process needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

__all__ = ["ROLE", "STACK", "Owner"]

STACK, ROLE = "chunkwire.stack", "chunkwire.role"
_HOST, _PROCESS, _STARTED = "chunkwire.owner.host", "chunkwire.owner.pid", "chunkwire.owner.started"


@dataclass(frozen=True)
class Owner:
    """The process that started a stack."""

    run: str
    """Of this run of eval-stack; part of every name that it gives."""
    host: str
    process: int
    started: str
    """When the process began, in ticks since its machine did: ids are given again. Empty where nothing tells."""

    @classmethod
    def this_process(cls) -> Owner:
        """With a run id of its own."""
        return cls(uuid4().hex[:8], socket.gethostname(), os.getpid(), _started(os.getpid()))

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Owner:
        """As `labels` wrote it."""
        process = labels.get(_PROCESS, "")
        number = int(process) if process.isdigit() else 0
        return cls(labels.get(STACK, ""), labels.get(_HOST, ""), number, labels.get(_STARTED, ""))

    def labels(self, role: str) -> dict[str, str]:
        """Of a container or network."""
        return {
            STACK: self.run,
            ROLE: role,
            _HOST: self.host,
            _PROCESS: str(self.process),
            _STARTED: self.started,
        }

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this host and runs no more; of another host nothing is known."""
        return self.host == socket.gethostname() and not self._runs()

    def _runs(self) -> bool:
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _started(self.process) == self.started


def _started(process: int) -> str:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # field 22; the command's name, before the bracket, may hold spaces
