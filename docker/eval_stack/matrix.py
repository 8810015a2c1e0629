"""What is measured: checkpoints x tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from eval_stack.checkpoint import NAME, Checkpoint, require_unique
from eval_stack.errors import InvalidMatrix

__all__ = ["Matrix", "tasks_of"]

_BEFORE = "Pass {} to eval-stack, before the --."
_SIM_ARGS_OF_OURS = {
    "--env": _BEFORE.format("--env"),
    "--suite": _BEFORE.format("--env"),
    "--episodes": _BEFORE.format("--episodes"),
    "--seed": _BEFORE.format("--seed"),
    "--out": _BEFORE.format("--out"),
    "--share": _BEFORE.format("--sims"),
    "--server": "Leave it out.",
    "--connect-timeout": "Leave it out.",
    "--json": "Leave it out.",
    "--overwrite": "To begin anew, delete the results or pass another --out.",
}
"""Flags of sim-client that the stack sets itself -> what to do instead."""

_SERVE_ARGS_OF_OURS = {
    "--checkpoint": "Pass --checkpoint to eval-stack.",
    "--host": "Leave it out.",
    "--port": "Leave it out.",
    "--tls-cert": "Leave it out: the stack has a network of its own.",
    "--tls-key": "Leave it out: the stack has a network of its own.",
    "--follow": "Name the steps: --checkpoint NAME=DIR, once for each.",
}


@dataclass(frozen=True)
class Matrix:
    """Every task is run with every checkpoint, on the same seeds.

    Raises:
        InvalidMatrix: nothing to measure, a name twice, a number out of range, or a flag that the stack sets.
    """

    checkpoints: tuple[Checkpoint, ...]
    tasks: tuple[str, ...]
    """ManiSkill's names."""
    out: Path
    """Folder for results: `<out>/<checkpoint>/<task>/`. Absolute."""
    episodes: int = 20
    """Of each task with each checkpoint."""
    seed: int = 0
    """Of the first episode."""
    sims: int = 1
    """Simulator containers that share the episodes of one checkpoint."""
    sim_args: tuple[str, ...] = ()
    """More flags of sim-client."""
    serve_args: tuple[str, ...] = ()
    """More flags of serve."""

    def __post_init__(self) -> None:
        _require_some(self.checkpoints, "checkpoint", "--checkpoint NAME=DIR")
        _require_some(self.tasks, "task", "--env StackCube-v1,PickCube-v1")
        require_unique(self.checkpoints)
        _require_tasks(self.tasks)
        for name, least in (("episodes", 1), ("seed", 0), ("sims", 1)):
            if (value := getattr(self, name)) < least:
                raise InvalidMatrix(f"--{name} is {value}; {least} is the least.", field=f"--{name}")
        _require_theirs("sim-client", self.sim_args, _SIM_ARGS_OF_OURS)
        _require_theirs("serve", self.serve_args, _SERVE_ARGS_OF_OURS)

    @property
    def planned(self) -> int:
        """Episodes of the whole matrix."""
        return len(self.checkpoints) * len(self.tasks) * self.episodes


def tasks_of(values: Sequence[str]) -> tuple[str, ...]:
    """Names from `A,B` and from several of them."""
    names = chain.from_iterable(value.split(",") for value in values)
    return tuple(name for part in names if (name := part.strip()))


def _require_some(values: Sequence[object], what: str, example: str) -> None:
    if not values:
        flag = example.split()[0]
        raise InvalidMatrix(f"No {what} is named. Pass {example}, or --matrix FILE.yaml that names some.", field=flag)


def _require_tasks(tasks: Sequence[str]) -> None:
    for task in tasks:
        if tasks.count(task) > 1:
            raise InvalidMatrix(f"The task {task} is named twice. Name each task once.", field="--env")
        if not NAME.fullmatch(task):
            raise InvalidMatrix(f"{task!r} is no name of a task. Pass one such as --env StackCube-v1.", field="--env")


def _require_theirs(command: str, arguments: Sequence[str], ours: Mapping[str, str]) -> None:
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag in ours:
            raise InvalidMatrix(f"{flag} of {command} is set by eval-stack. {ours[flag]}", field=flag)
