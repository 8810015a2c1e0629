"""Whether ManiSkill has a task, found out before a server is asked."""

from __future__ import annotations

from rich.console import Console

from policy_protocol import did_you_mean
from sim_client.errors import UnknownEnvironment
from sim_client.tasks import TASKS

__all__ = ["require_known"]


def require_known(env_id: str, console: Console) -> None:
    """Raises `UnknownEnvironment` with the closest name."""
    if env_id in TASKS:
        return
    console.print(f"{env_id} is none of the project's tasks; looking it up in ManiSkill …", markup=False)
    from sim_client.simulator import env_ids

    names = env_ids()
    if env_id not in names:
        raise UnknownEnvironment(f"Unknown environment {env_id!r}.{did_you_mean(env_id, names)}", field="--env")
