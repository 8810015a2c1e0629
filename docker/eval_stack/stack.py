"""One checkpoint measured: a server until it is healthy, then its clients until they are done."""

from __future__ import annotations

import time
from collections.abc import Callable

from eval_stack.container import RunningContainer
from eval_stack.errors import ClientFailed
from eval_stack.plan import StackPlan
from eval_stack.running import Running
from eval_stack.screen import Screen
from eval_stack.server import Server

__all__ = ["run_stack"]

_POLL_S = 0.5
_LINES = 10
"""Of a failed client's log: it says what went wrong at the end."""


def run_stack(plan: StackPlan, running: Running, screen: Screen, tick: Callable[[], None]) -> None:
    """Start everything, wait for the clients, and remove it again.

    Args:
        tick: called every now and then while the clients run.

    Raises:
        ServerDied: before it was ready, or too often after.
        ClientFailed: a client did, after all of them ended.
        EngineUnavailable: the engine refused, or answers no more.
    """
    name = plan.checkpoint.name
    running.network(plan.network)
    screen.say(f"Starting the server of {name}: {plan.checkpoint.directory}.")
    server = Server(running.container(plan.server, f"{name} server"), name, screen)
    server.wait_until_healthy()
    shown = [f"{name} sim {number}" for number in range(1, len(plan.clients) + 1)]
    clients = [running.container(client, show_as) for client, show_as in zip(plan.clients, shown, strict=True)]
    while any(client.exit_code is None for client in clients):
        server.keep_alive()
        tick()
        time.sleep(_POLL_S)
    tick()
    failures = [_failure(client, name) for client, name in zip(clients, shown, strict=True) if client.exit_code]
    running.stop()
    if failures:
        raise failures[0]


def _failure(client: RunningContainer, name: str) -> ClientFailed:
    client.log.join()
    memory = ", as memory ran out" if client.ran_out_of_memory else ""
    lines = "\n".join(f"  {line}" for line in client.log.last[-_LINES:])
    code = client.exit_code or 1
    return ClientFailed(f"{name} ended with code {code}{memory}. The end of its log:\n{lines}", code)
