"""A container that was started, and its log."""

from __future__ import annotations

from docker.errors import APIError, NotFound
from docker.models.containers import Container

from eval_stack.log_tail import LogTail

__all__ = ["RunningContainer", "exit_code", "send_signal"]

_KILLED = 128 + 9
_RUNNING = ("running", "paused", "restarting")


class RunningContainer:
    """A container of this run.

    Attributes:
        log: what it writes.
    """

    def __init__(self, container: Container, log: LogTail) -> None:
        self._container, self.log = container, log

    def start(self) -> None:
        """For the first time, or again."""
        self._container.start()
        self.log.follow()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return exit_code(self._container)

    @property
    def health(self) -> str | None:
        """By the image's HEALTHCHECK: `starting`, `healthy` or `unhealthy`; None where it has none."""
        self._container.reload()
        health = self._container.attrs["State"].get("Health")
        return None if health is None else str(health["Status"])

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended it for that."""
        return bool(self._container.attrs["State"].get("OOMKilled"))

    def output(self) -> str:
        """Its whole standard output."""
        return str(self._container.logs(stdout=True, stderr=False).decode(errors="replace"))


def exit_code(container: Container) -> int | None:
    """None while it runs; of one that somebody removed, that of a killed one."""
    try:
        container.reload()
    except NotFound:
        return _KILLED
    state = container.attrs["State"]
    return None if state["Status"] in _RUNNING else int(state["ExitCode"])


def send_signal(container: Container, name: str) -> None:
    """Send a signal, such as SIGINT, to a container; nothing happens where it ended meanwhile."""
    try:
        container.kill(signal=name)
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:
            raise
