"""One checkpoint measured: a server until it is healthy, then its clients until they are done."""

from __future__ import annotations

import time
from collections.abc import Callable

from eval_stack.container import RunningContainer
from eval_stack.plan import StackPlan
from eval_stack.running import Running
from eval_stack.screen import Screen
from eval_stack.server import Server

__all__ = ["run_stack"]

_POLL_S = 0.5


def run_stack(plan: StackPlan, running: Running, screen: Screen, tick: Callable[[], None]) -> int:
    """Start everything, wait for the clients, and remove it again.

    Args:
        tick: called every now and then while the clients run.

    Returns:
        The exit code of the first client that failed; 0 if none did.

    Raises:
        ServerDied: before it was ready, or too often after.
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
    code = _first_failure(clients, shown, screen)
    running.stop()
    return code


def _first_failure(clients: list[RunningContainer], shown: list[str], screen: Screen) -> int:
    failed = 0
    for client, name in zip(clients, shown, strict=True):
        client.log.join()
        if code := client.exit_code:
            memory = ", as memory ran out" if client.ran_out_of_memory else ""
            screen.say(f"{name} ended with code {code}{memory}.")
            failed = failed or code
    return failed
