"""A plan carried out, from the images to the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import docker

from eval_stack.episode_count import EpisodeCount
from eval_stack.errors import ClientFailed, ServerDied
from eval_stack.image_supply import supply
from eval_stack.images import Wanted
from eval_stack.index import write_index
from eval_stack.output import make_output
from eval_stack.owner import Owner
from eval_stack.plan import Plan
from eval_stack.results import Results, read_results
from eval_stack.running import Running
from eval_stack.screen import Screen
from eval_stack.stack import run_stack

__all__ = ["Outcome", "measure"]

_MISUSED = 2
"""Exit code of a client whose flags cannot be: those of the next checkpoint are the same."""


@dataclass
class Outcome:
    """How it ended."""

    report: Path
    results: Results
    failed: Mapping[str, str] = field(default_factory=dict)
    """Checkpoint -> why it was not measured to the end."""
    exit_code: int = 0
    """Of the first client, or server, that failed; or that of a report that could not be made."""


def measure(
    plan: Plan, engine: docker.DockerClient, owner: Owner, screen: Screen, *, wanted: Wanted, keep: bool = False
) -> Outcome:
    """See to the images, run every checkpoint's stack, and write the report of what there is then.

    A checkpoint that fails is told in the report, and the next one is gone on with.

    Args:
        owner: who the containers belong to.
        wanted: which images to make.
        keep: leave the containers there.

    Raises:
        ImageUnavailable: an image is missing.
        OutputUnwritable: the folder for results cannot be used.
        EngineUnavailable: the engine refused, or answers no more.
    """
    matrix = plan.matrix
    make_output(matrix.out, tuple(checkpoint.name for checkpoint in matrix.checkpoints))
    supply(engine, plan.images, wanted, screen)
    failed: dict[str, str] = {}
    with Running(engine, owner, screen, keep=keep) as running:
        exit_code = _run_stacks(plan, running, screen, failed)
        screen.say("Reading the results.")
        results = read_results(plan, running)
    return Outcome(write_index(matrix, results, failed), results, failed, exit_code or int(not results.whole))


def _run_stacks(plan: Plan, running: Running, screen: Screen, failed: dict[str, str]) -> int:
    count, matrix = EpisodeCount(plan.matrix), plan.matrix
    first_code = 0

    def tick() -> None:
        screen.show("Episodes", count(), matrix.planned, "are finished")

    for stack in plan.stacks:
        try:
            run_stack(stack, running, screen, tick)
        except (ServerDied, ClientFailed) as error:
            screen.say(error.message)
            running.stop()
            failed[stack.checkpoint.name] = error.message
            first_code = first_code or error.exit_code
            if error.exit_code == _MISUSED:
                break
    screen.hide()
    return first_code
