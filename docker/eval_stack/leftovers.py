"""Containers and networks of a run whose process is gone."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import docker
from docker.errors import NotFound
from docker.models.containers import Container
from docker.models.networks import Network

from eval_stack.owner import STACK, Owner

__all__ = ["Leftovers", "find_leftovers"]


class Leftovers:
    """What is left of runs that crashed, were killed, or were told to keep it.

    Attributes:
        names: of the containers and networks.
    """

    def __init__(self, containers: Iterable[Container], networks: Iterable[Network]) -> None:
        self._containers, self._networks = tuple(containers), tuple(networks)
        self.names = tuple(str(one.name) for one in (*self._containers, *self._networks))

    def remove(self) -> None:
        """Remove them, running ones too; results stay."""
        for container in self._containers:
            with suppress(NotFound):
                container.remove(force=True, v=True)
        for network in self._networks:
            with suppress(NotFound):
                network.remove()


def find_leftovers(engine: docker.DockerClient) -> Leftovers:
    """Those whose process ran on this host and runs no more. Another host's are not known to be left."""
    containers = engine.containers.list(all=True, filters={"label": STACK})
    networks = engine.networks.list(filters={"label": STACK})
    return Leftovers(
        (one for one in containers if Owner.of(one.labels).is_gone),
        (one for one in networks if Owner.of(one.attrs.get("Labels") or {}).is_gone),
    )
