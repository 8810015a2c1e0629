"""A container before there is one: what is shown by --dry-run is what is created."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest
from docker.types import Mount as DockerMount

__all__ = ["ContainerPlan", "Mount", "user_for"]


@dataclass(frozen=True)
class Mount:
    """A folder of the host, or a named volume, inside a container."""

    source: str
    target: str
    writable: bool = False

    @property
    def is_volume(self) -> bool:
        """Whether `source` is a volume's name and no path."""
        return not self.source.startswith("/")

    def __str__(self) -> str:
        return f"{self.source} at {self.target}{'' if self.writable else ', read-only'}"


@dataclass(frozen=True)
class ContainerPlan:
    """A container that writes to its mounts and to /tmp, runs as nobody else than the caller, and has no privileges."""

    role: str
    name: str
    image: str
    program: str
    arguments: tuple[str, ...]
    user: str
    """`uid:gid`."""
    mounts: tuple[Mount, ...]
    network: str | None = None
    """None for a container that talks to nobody."""
    alias: str = ""
    """Its host name in the network."""
    gpu: str = ""
    """Index of an NVIDIA GPU; empty for none. What of its driver is mounted, the image's environment says."""

    @property
    def command(self) -> str:
        """The command line, as a shell would take it."""
        return shlex.join((self.program, *self.arguments))

    def to_docker(self) -> dict[str, Any]:
        """Keyword arguments of the SDK's `containers.create`, without the network's settings and the labels."""
        return {
            "image": self.image,
            "name": self.name,
            "entrypoint": [self.program],
            "command": list(self.arguments),
            "user": self.user,
            "mounts": [_docker_mount(mount) for mount in self.mounts],
            "read_only": True,
            "tmpfs": {"/tmp": "exec"},
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "device_requests": self._devices(),
            **({"network": self.network} if self.network else {"network_mode": "none"}),
        }

    def _devices(self) -> list[DeviceRequest]:
        if not self.gpu:
            return []
        return [DeviceRequest(driver="nvidia", device_ids=[self.gpu], capabilities=[["gpu"]])]


def user_for(folder: Path) -> str:
    """`uid:gid` of the caller; for root, of the owner of `folder`, who is to read and write it.

    Root inside a container without capabilities is no more than the owner of root's files.
    """
    uid, gid = os.getuid(), os.getgid()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if uid == 0:
        uid, gid = there.stat().st_uid, there.stat().st_gid
    return f"{uid}:{gid}"


def _docker_mount(mount: Mount) -> DockerMount:
    kind = "volume" if mount.is_volume else "bind"
    return DockerMount(mount.target, mount.source, type=kind, read_only=not mount.writable)
