"""The two images: their names, and how they are built. Defaults, and names in the environment, are `docker/.env`'s."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["CHECKOUT", "SIM_IMAGE", "BuildArguments", "Image", "Wanted", "images_of", "server_image_for"]

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that images are built from; without the Dockerfiles where the package is installed from a wheel."""

SIM_IMAGE = "chunkwire/sim-client"
_SERVER_IMAGE, _SERVER_GPU_IMAGE = "chunkwire/policy-server:cpu", "chunkwire/policy-server"

Wanted = Literal["missing", "build", "pull", "never"]
"""What is made: images that are missing, all by building, all by pulling, or none."""


@dataclass(frozen=True)
class BuildArguments:
    """What both images are built with."""

    base_image: str = "debian:bookworm-slim"
    network: str = "default"
    """Of the build's own containers."""
    pip_index_url: str = ""
    pip_extra_index_url: str = ""
    pip_find_links: str = ""

    @classmethod
    def of_environment(cls, base_image: str, network: str) -> BuildArguments:
        """With the package index that the environment names."""
        index, extra, links = (
            os.environ.get(name, "") for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")
        )
        return cls(base_image, network, index, extra, links)

    def to_docker(self) -> dict[str, str]:
        """Build arguments of the Dockerfiles."""
        return {
            "BASE": self.base_image,
            "PIP_INDEX_URL": self.pip_index_url,
            "PIP_EXTRA_INDEX_URL": self.pip_extra_index_url,
            "PIP_FIND_LINKS": self.pip_find_links,
        }


@dataclass(frozen=True)
class Image:
    """An image of the stack."""

    name: str
    dockerfile: str
    """Relative to the checkout."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"

    @property
    def buildable(self) -> bool:
        """Whether the checkout that it is built from is here."""
        return (CHECKOUT / self.dockerfile).is_file()


def server_image_for(*, gpu: bool) -> str:
    """The server's image where no flag names one."""
    if gpu:
        return os.environ.get("SERVER_GPU_IMAGE", _SERVER_GPU_IMAGE)
    return os.environ.get("SERVER_IMAGE", _SERVER_IMAGE)


def images_of(server: str, sim: str, build: BuildArguments, *, gpu: bool) -> tuple[Image, Image]:
    """The server's and the simulator's image."""
    arguments, network = build.to_docker(), build.network
    accelerator = {"ACCELERATOR": "cuda12" if gpu else "cpu"}
    return (
        Image(server, "docker/policy_server.Dockerfile", {**arguments, **accelerator}, network),
        Image(sim, "docker/sim_client.Dockerfile", arguments, network),
    )
