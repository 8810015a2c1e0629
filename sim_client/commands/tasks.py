"""`sim-client tasks`: the tasks that the project collects, trains and measures."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from policy_protocol.json_tree import to_json
from sim_client.tasks import TASKS

__all__ = ["tasks_command"]


def tasks_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """List the tasks: how long demonstrations take, ManiSkill's own limit, whether a camera shows the goal."""
    if as_json:
        print(json.dumps([to_json(task) for task in TASKS.values()], indent=2))
        return
    table = Table("task", "demonstration", "ManiSkill's limit", "goal", box=None, pad_edge=False)
    for task in TASKS.values():
        goal = "visible" if task.goal_visible else f"only in {', '.join(task.goal_state)}"
        table.add_row(task.env_id, f"~{task.demonstration_steps} steps", f"{task.registered_limit} steps", goal)
    console = Console(highlight=False)
    console.print(table)
    console.print("\nPrompts:")
    for task in TASKS.values():
        console.print(f"  {task.env_id}: {task.prompt}", soft_wrap=True, markup=False)
