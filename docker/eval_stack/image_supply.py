"""Images found, built or pulled, with progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound
from docker.utils import parse_repository_tag

from eval_stack.errors import ImageUnavailable
from eval_stack.images import CHECKOUT, Image, Wanted
from eval_stack.screen import Screen

__all__ = ["supply"]

_LINES = 30
"""Of a failed build's output that are shown."""


def supply(engine: docker.DockerClient, images: Iterable[Image], wanted: Wanted, screen: Screen) -> None:
    """See to it that the engine has the images.

    Raises:
        ImageUnavailable: one is missing, and `wanted` is "never", or it could not be built or pulled.
    """
    for image in images:
        if wanted == "build":
            _build(engine, image, screen)
        elif wanted == "pull":
            _pull(engine, image, screen)
        elif not _is_here(engine, image):
            _make(engine, image, wanted, screen)
    screen.hide()


def _is_here(engine: docker.DockerClient, image: Image) -> bool:
    try:
        engine.images.get(image.name)
    except ImageNotFound:
        return False
    return True


def _make(engine: docker.DockerClient, image: Image, wanted: Wanted, screen: Screen) -> None:
    if wanted == "never":
        raise ImageUnavailable(
            f"The engine has no image {image.name}, and --no-build forbids to make it. Leave --no-build out, or build "
            f"it: docker build -f {image.dockerfile} -t {image.name} ."
        )
    if image.buildable:
        _build(engine, image, screen)
    else:
        _pull(engine, image, screen)


def _build(engine: docker.DockerClient, image: Image, screen: Screen) -> None:
    if not image.buildable:
        raise ImageUnavailable(
            f"{image.name} is built from {image.dockerfile}, and {CHECKOUT} holds none: this is no checkout of "
            "Chunkwire. Run eval-stack from a checkout, or pass --pull."
        )
    screen.say(f"Building {image.name} from {image.dockerfile}.")
    events = engine.api.build(
        path=str(CHECKOUT),
        dockerfile=image.dockerfile,
        tag=image.name,
        buildargs={name: value for name, value in image.arguments.items() if value},
        network_mode=image.network,
        rm=True,
        forcerm=True,  # also the container of a step that failed
        decode=True,
    )
    said: deque[str] = deque(maxlen=_LINES)
    for event in events:
        for line in str(event.get("stream", "")).splitlines():
            said.append(line)
            _show_step(line, image, screen)
        if "error" in event:
            raise _not_built(image, str(event["error"]), said)


def _not_built(image: Image, reason: str, said: Iterable[str]) -> ImageUnavailable:
    lines = "\n".join(f"  {line}" for line in said if line.strip())
    return ImageUnavailable(f"{image.name} could not be built: {reason}. The end of the output:\n{lines}")


def _show_step(line: str, image: Image, screen: Screen) -> None:
    """Of "Step 3/20 : RUN …" the count; every step is a line too."""
    if line.startswith("Step "):
        done, _, total = line.split()[1].partition("/")
        screen.show(f"Building {image.name}", int(done), int(total))
        screen.line("build", line)


def _pull(engine: docker.DockerClient, image: Image, screen: Screen) -> None:
    screen.say(f"Pulling {image.name}.")
    layers: dict[str, Mapping[str, Any]] = {}
    try:
        repository, tag = parse_repository_tag(image.name)
        for event in engine.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in event:
                raise _not_pulled(image, str(event["error"]))
            if event.get("progressDetail"):
                layers[event["id"]] = event["progressDetail"]
                megabytes = [sum(layer.get(of, 0) for layer in layers.values()) // 10**6 for of in ("current", "total")]
                screen.show(f"Pulling {image.name}, MB", *megabytes)
    except APIError as error:
        raise _not_pulled(image, error.explanation or str(error)) from error


def _not_pulled(image: Image, reason: str) -> ImageUnavailable:
    return ImageUnavailable(
        f"{image.name} could not be pulled: {reason}. Build it from a checkout (--build), or name another image: "
        "--server-image, --sim-image."
    )
