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

_LIMITS = (
    "The cameras are those with the robot panda_wristcam. ManiSkill's limit would cut demonstrations off and is not "
    "used: an evaluation takes its limit from the policy's spec, where training puts more than the longest "
    "demonstration took. --max-episode-steps overrides it."
)


def tasks_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """List the tasks: cameras, how long demonstrations take, ManiSkill's limit, whether a camera shows the goal."""
    if as_json:
        print(json.dumps([to_json(task) for task in TASKS.values()], indent=2))
        return
    table = Table("task", "cameras", "demonstration", "ManiSkill's limit", "goal", box=None, pad_edge=False)
    for task in TASKS.values():
        goal = "visible" if task.goal_visible else f"only in {', '.join(task.goal_state)}"
        cameras = ", ".join(task.cameras)
        limit = f"{task.registered_limit} steps"
        table.add_row(task.env_id, cameras, f"~{task.demonstration_steps} steps", limit, goal)
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to fit into
        console = Console(highlight=False, width=1000)
    console.print(table)
    console.print(f"\n{_LIMITS}\n\nPrompts:", soft_wrap=True)
    for task in TASKS.values():
        console.print(f"  {task.env_id}: {task.prompt}", soft_wrap=True, markup=False)
