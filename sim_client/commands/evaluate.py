"""`sim-client --env …`: measure the policy that a server runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sim_client.commands.episode_flags import EpisodeFlags
from sim_client.commands.flag_groups import with_flag_groups
from sim_client.commands.known_environment import require_known
from sim_client.commands.policy_flags import PolicyFlags
from sim_client.commands.recording_flags import RecordingFlags
from sim_client.commands.report import show_result
from sim_client.commands.staff_flags import OutputFlags, StaffFlags
from sim_client.commands.suite import measure_suite
from sim_client.episode.environment import open_environment
from sim_client.errors import IncompleteRun, InvalidOption
from sim_client.evaluation.run import run_evaluation
from sim_client.evaluation.suite import chosen_tasks
from sim_client.results.directory import report_path

__all__ = ["evaluate_command"]


@with_flag_groups
def evaluate_command(
    context: typer.Context,
    env: Annotated[
        str | None, typer.Option(metavar="ENV[,ENV…]", help="ManiSkill task, such as StackCube-v1; or several.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="A set of tasks instead: maniskill6, the project's six.")] = None,
    *,
    policy: PolicyFlags,
    episodes: EpisodeFlags,
    recording: RecordingFlags,
    staff: StaffFlags,
    output: OutputFlags,
) -> None:
    """Measure a served policy in ManiSkill: success with its interval, one record per episode, a report.

    The simulator is set up from the spec that the server sends, and a difference from training is refused. Running the
    same command again goes on where it stopped.
    """
    if context.invoked_subcommand is not None:
        _require_no_options(context)
        return
    console = Console(stderr=True, highlight=False)
    tasks, dial = tuple(map(episodes.options, _required_tasks(env, suite))), policy.dial()
    evaluate = partial(
        run_evaluation,
        video=recording.rules(),
        save_observations=recording.save_observations,
        staff=staff.staff(),
        overwrite=output.overwrite,
        share=output.share,
        console=console,
        open_environment=context.obj or open_environment,
    )
    if len(tasks) > 1:
        measure_suite(tasks, dial, output.out, output.as_json, evaluate, console)
        return
    (task,) = tasks
    require_known(task.env_id, console)
    _show(evaluate(task, dial, output.out), output.as_json)


def _show(directory: Path, as_json: bool) -> None:
    summary = show_result(directory, as_json)
    if errors := summary.outcomes["error"]:
        raise IncompleteRun(
            f"{errors} of {summary.planned} episodes ended in an infrastructure error (see {report_path(directory)}). "
            "Run the same command again to repeat them."
        )


def _required_tasks(env: str | None, suite: str | None) -> tuple[str, ...]:
    tasks = chosen_tasks(env, suite)
    if not tasks:
        raise InvalidOption(
            "Name the task to measure: sim-client --env StackCube-v1. `sim-client tasks` lists the tasks, "
            "`sim-client --help` the options and the other commands.",
            field="--env",
        )
    return tasks


def _require_no_options(context: typer.Context) -> None:
    """Options before another verb belong to nobody: say so instead of dropping them."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
    ]
    if given:
        verb = context.invoked_subcommand
        raise InvalidOption(
            f"{given[0]} stands before the command {verb!r}, where it has no effect. Write it after: "
            f"sim-client {verb} … (see `sim-client {verb} --help`).",
            field=given[0],
        )
