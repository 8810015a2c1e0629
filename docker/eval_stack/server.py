"""A policy server's container: waited for until it is healthy, and started again when it dies under its clients."""

from __future__ import annotations

import time

from docker.errors import NotFound

from eval_stack.container import RunningContainer
from eval_stack.errors import ServerDied
from eval_stack.screen import Screen

__all__ = ["Server"]

_POLL_S = 0.5


class Server:
    """The server of one checkpoint.

    Args:
        container: just started.
        name: the checkpoint's.
        restarts: how often it may die while clients run.
    """

    def __init__(self, container: RunningContainer, name: str, screen: Screen, restarts: int = 3) -> None:
        self._container, self._name, self._screen, self._restarts = container, name, screen, restarts
        self._restarted = 0

    def wait_until_healthy(self) -> None:
        """Until everything is compiled, which is more than being started.

        Raises:
            ServerDied: it ended, became unhealthy, or its image has no HEALTHCHECK.
        """
        started = time.monotonic()
        while (health := self._container.health) != "healthy":
            if (code := self._container.exit_code) is not None:
                raise self._died(f"ended with code {code} before it was ready")
            if health == "unhealthy":
                raise self._died("runs, but does not become ready")
            if health is None:
                raise self._died(
                    "cannot be waited for, as its image has no HEALTHCHECK; name one that is built from "
                    "docker/policy_server.Dockerfile"
                )
            time.sleep(_POLL_S)
        self._screen.say(f"The server of {self._name} is ready after {time.monotonic() - started:.0f} s.")

    def keep_alive(self) -> None:
        """Start it again if it died.

        Raises:
            ServerDied: it did so too often.
        """
        code = self._container.exit_code
        if code is None:
            return
        what = f"ended with code {code} while its clients ran"
        if self._restarted == self._restarts:
            raise self._died(f"{what}, {self._restarts + 1} times")
        self._restarted += 1
        self._screen.say(
            f"The server of {self._name} {what}. It is started again, {self._restarted} of {self._restarts} times; the "
            "clients wait for it."
        )
        try:
            self._container.start()
        except NotFound as error:
            raise self._died("was removed while its clients ran") from error

    def _died(self, how: str) -> ServerDied:
        self._container.log.join()
        reason = " The engine ended it, as memory ran out." if self._container.ran_out_of_memory else ""
        lines = "\n".join(f"  {line}" for line in self._container.log.last)
        return ServerDied(f"The server of {self._name} {how}.{reason} The end of its log:\n{lines}")
