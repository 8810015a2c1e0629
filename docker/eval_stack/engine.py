"""The Docker engine, reached or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from eval_stack.errors import EngineUnavailable

__all__ = ["connected", "reporting_engine_errors"]


@contextmanager
def connected() -> Iterator[docker.DockerClient]:
    """The engine of DOCKER_HOST, by default this machine's.

    Raises:
        EngineUnavailable: it does not run, may not be used, or fails during the block.
    """
    try:
        engine = docker.from_env()
    except DockerException as error:
        raise _unreachable(error) from error
    try:
        with reporting_engine_errors():
            yield engine
    finally:
        engine.close()


@contextmanager
def reporting_engine_errors() -> Iterator[None]:
    """What the SDK raises in the block as an `EngineUnavailable`."""
    try:
        yield
    except APIError as error:
        raise EngineUnavailable(f"The Docker engine refused: {error.explanation or error}.") from error
    except (DockerException, RequestException, HTTPError) as error:
        raise EngineUnavailable(
            f"The Docker engine stopped answering: {error}. Once it runs, `eval-stack clean` removes what is left, and "
            "the same command goes on where it stopped."
        ) from error


def _unreachable(error: Exception) -> EngineUnavailable:
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    causes = _causes(error)
    if any(isinstance(cause, PermissionError) for cause in causes):
        return EngineUnavailable(
            f"This user may not use the Docker engine at {address}: permission denied. Run as root, or as root: "
            "usermod -aG docker USER, and log in again."
        )
    if any(isinstance(cause, FileNotFoundError | ConnectionRefusedError) for cause in causes):
        return EngineUnavailable(
            f"No Docker engine runs at {address}. Start it (systemctl start docker), or name another in DOCKER_HOST."
        )
    return EngineUnavailable(f"The Docker engine at {address} cannot be reached: {error}")


def _causes(error: BaseException) -> list[BaseException]:
    """The error and everything that it was raised from, or that is wrapped in its arguments."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__, *(part for part in one.args if isinstance(part, BaseException))]
    return found
