"""What a run has on the engine, and its removal however the run ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

import docker
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from eval_stack.container import RunningContainer, exit_code, send_signal
from eval_stack.container_plan import ContainerPlan
from eval_stack.log_tail import LogTail
from eval_stack.owner import ROLE, STACK, Owner
from eval_stack.screen import Screen

__all__ = ["Running"]

_GRACE_S = {"sim": 60.0, "report": 10.0, "server": 10.0}
"""How long a container may take to end: a client writes its report, a server its last answers."""
_SIGNALS = {"sim": "SIGINT", "report": "SIGINT", "server": "SIGTERM"}
_POLL_S = 0.2


class Running:
    """Containers and networks of one run. Leaving the block removes all of them, found by their label.

    Args:
        keep: leave them there, stopped, to be looked at.
    """

    def __init__(self, engine: docker.DockerClient, owner: Owner, screen: Screen, *, keep: bool = False) -> None:
        self._engine, self._owner, self._screen, self._keep = engine, owner, screen, keep

    def network(self, name: str) -> None:
        """Make a network."""
        self._engine.networks.create(name, driver="bridge", labels=self._owner.labels("network"))

    def container(self, plan: ContainerPlan, show_as: str = "") -> RunningContainer:
        """Make a container and start it; its log is shown under a name, none without."""
        networking = None
        if plan.network and plan.alias:
            networking = {plan.network: self._engine.api.create_endpoint_config(aliases=[plan.alias])}
        user = "0:0" if self._is_rootless() else plan.user  # root there is the caller, and any other user is nobody's
        container = self._engine.containers.create(
            **{**plan.to_docker(), "user": user}, networking_config=networking, labels=self._owner.labels(plan.role)
        )
        log = LogTail(container, lambda line: self._screen.line(show_as, line) if show_as else None)
        running = RunningContainer(container, log)
        running.start()
        return running

    def _is_rootless(self) -> bool:
        return any("rootless" in option for option in self._engine.info().get("SecurityOptions") or ())

    def stop(self) -> None:
        """End what runs, clients first; remove it, unless it is to be kept."""
        try:
            for role in _SIGNALS:
                _end(self._containers(role), role)
        except KeyboardInterrupt:
            self._screen.say("Stopped once more: what still runs is killed.")
        finally:
            with _uninterrupted():
                self._remove()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
            kept = self._containers()
        except (DockerException, RequestException, HTTPError) as problem:
            self._screen.say(f"Containers may be left: {problem}. `eval-stack clean` removes them.")
            return
        if kept:
            names = ", ".join(sorted(str(container.name) for container in kept))
            self._screen.say(f"Kept: {names}. `eval-stack clean` removes them.")

    def _containers(self, role: str | None = None) -> list[Container]:
        labels = [f"{STACK}={self._owner.run}", *([f"{ROLE}={role}"] if role else [])]
        return list(self._engine.containers.list(all=True, filters={"label": labels}))

    def _remove(self) -> None:
        for container in self._containers():
            if not self._keep or container.labels[ROLE] == "report":
                with suppress(NotFound):
                    container.remove(force=True, v=True)  # with the volumes that have no name
            elif exit_code(container) is None:
                send_signal(container, "SIGKILL")
        if not self._keep:
            for network in self._engine.networks.list(filters={"label": f"{STACK}={self._owner.run}"}):
                with suppress(NotFound):
                    network.remove()


def _end(containers: Iterable[Container], role: str) -> None:
    running = [container for container in containers if exit_code(container) is None]
    for container in running:
        send_signal(container, _SIGNALS[role])
    deadline = time.monotonic() + _GRACE_S[role]
    while any(exit_code(container) is None for container in running) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closing terminal do nothing in the block, which takes a second."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
