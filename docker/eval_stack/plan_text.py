"""What `--dry-run` prints."""

from __future__ import annotations

import re
from collections.abc import Iterator

from eval_stack.container_plan import ContainerPlan
from eval_stack.images import Image, Wanted
from eval_stack.plan import Plan, StackPlan

__all__ = ["plan_text"]

_CREDENTIALS = re.compile(r"//[^/@\s]+@")


def plan_text(plan: Plan, wanted: Wanted) -> str:
    """Images, containers with their mounts and commands, and the order of it all."""
    matrix = plan.matrix
    lines = [
        f"Checkpoints x tasks x episodes: {len(matrix.checkpoints)} x {len(matrix.tasks)} x {matrix.episodes} = "
        f"{matrix.planned}, to {matrix.out}",
        "",
        "Images",
        *(f"  {image.name}: {_supply(image, wanted)}" for image in plan.images),
    ]
    for number, stack in enumerate(plan.stacks, 1):
        lines += ["", *_stack(number, stack)]
    lines += ["", *_end(plan), "", "Nothing was started."]
    return "\n".join(lines)


def _supply(image: Image, wanted: Wanted) -> str:
    if wanted == "never":
        return "must be there"
    if wanted == "pull" or not image.buildable:
        return "pulled" if wanted == "pull" else "pulled if it is missing"
    arguments = " ".join(f"{name}={value}" for name, value in image.arguments.items() if value)
    shown = _CREDENTIALS.sub("//…@", arguments)
    return f"built from {image.dockerfile}{'' if wanted == 'build' else ' if it is missing'} ({shown})"


def _stack(number: int, stack: StackPlan) -> Iterator[str]:
    yield f"{number}. {stack.checkpoint.name}: network {stack.network}"
    yield from _container(stack.server)
    yield "     until it is healthy, then"
    for client in stack.clients:
        yield from _container(client)
    yield "     until they are done"


def _container(plan: ContainerPlan) -> Iterator[str]:
    yield f"   {plan.role} {plan.name} ({plan.image}) as {plan.user}{f', GPU {plan.gpu}' if plan.gpu else ''}"
    yield f"     {plan.command}"
    yield from (f"     mounts {mount}" for mount in plan.mounts)


def _end(plan: Plan) -> Iterator[str]:
    matrix = plan.matrix
    yield f"At the end, in containers of {plan.images[1].name} without a network"
    yield from (f"     {plan.report_of(one, task).command}" for one in matrix.checkpoints for task in matrix.tasks)
    if len(matrix.checkpoints) > 1:
        yield f"     {plan.comparison(matrix.checkpoints).command}"
    yield f"     and the index {matrix.out / 'report.md'}"
