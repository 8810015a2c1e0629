"""`eval-stack --checkpoint …`: measure a matrix of checkpoints and tasks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from docker import DockerClient

from eval_stack.checkpoint import Checkpoint
from eval_stack.engine import connected
from eval_stack.errors import Interrupted, InvalidMatrix
from eval_stack.images import SIM_IMAGE, BuildArguments, Wanted, images_of, server_image_for
from eval_stack.leftovers import find_leftovers
from eval_stack.matrix import Matrix, tasks_of
from eval_stack.matrix_file import read_matrix_file
from eval_stack.measure import Outcome, measure
from eval_stack.output import require_possible
from eval_stack.owner import Owner
from eval_stack.plan import Devices, Plan, plan_of
from eval_stack.plan_text import plan_text
from eval_stack.screen import Screen

__all__ = ["measure_command"]


def measure_command(
    context: typer.Context,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="Step directory, with a name of its own or not; repeatable.", metavar="[NAME=]DIR"),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="ManiSkill tasks; every checkpoint runs each.", metavar="ENV[,ENV…]")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(help="Of each task with each checkpoint.  [default: 20]", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first episode.  [default: 0]", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results, continued if it has some.")] = None,
    sims: Annotated[
        int | None,
        typer.Option(help="Simulator containers that share a checkpoint's episodes.  [default: 1]", show_default=False),
    ] = None,
    serve_args: Annotated[str | None, typer.Option(help="More flags of serve, in one argument.")] = None,
    matrix: Annotated[
        Path | None, typer.Option(help="All of this as YAML; flags override it.", metavar="FILE.yaml")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Serve and render on NVIDIA GPUs.")] = False,
    server_gpu: Annotated[str, typer.Option(help="Index of the GPU that serves.", envvar="SERVER_GPU")] = "0",
    sim_gpu: Annotated[str, typer.Option(help="Index of the GPU that renders.", envvar="SIM_GPU")] = "0",
    build: Annotated[bool, typer.Option("--build", help="Build the images, also where they are there.")] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Pull the images, also where they are there.")] = False,
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Neither build nor pull; a missing image is an error.")
    ] = False,
    server_image: Annotated[
        str | None,
        typer.Option(
            help="The server's.  [default: chunkwire/policy-server, with :cpu without --gpu]", show_default=False
        ),
    ] = None,
    sim_image: Annotated[str, typer.Option(help="The simulator's.", envvar="SIM_IMAGE")] = SIM_IMAGE,
    base_image: Annotated[
        str, typer.Option(help="What images are built on: a Debian 12 or later.", envvar="BASE_IMAGE")
    ] = BuildArguments.base_image,
    build_network: Annotated[
        str, typer.Option(help="Network of the build, such as host.", envvar="BUILD_NETWORK")
    ] = BuildArguments.network,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and start nothing.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the containers there, stopped.")] = False,
    remove_leftovers: Annotated[
        bool, typer.Option("--remove-leftovers", help="Remove what crashed runs left, without asking.")
    ] = False,
) -> None:
    """Measure a matrix of checkpoints and tasks in containers: a server and simulators for each checkpoint in turn.

    Every task is run with every checkpoint on the same seeds. The same command goes on where it stopped.
    """
    if context.invoked_subcommand is not None:
        _require_no_flags(context)
        return
    wanted = _wanted(build, pull, no_build)
    flags = {
        "checkpoints": tuple(map(Checkpoint.from_flag, checkpoint or ())),
        "tasks": tasks_of(env or ()),
        "episodes": episodes,
        "seed": seed,
        "sims": sims,
        "out": out and out.resolve(),
        "serve_args": _words(serve_args or ""),
        "sim_args": tuple(context.obj or ()),
    }
    asked = _matrix(matrix, flags)
    require_possible(asked.out)
    arguments = BuildArguments.of_environment(base_image, build_network)
    images = images_of(server_image or server_image_for(gpu=gpu), sim_image, arguments, gpu=gpu)
    owner = Owner.this_process()
    plan = plan_of(asked, images, Devices(server_gpu, sim_gpu) if gpu else Devices(), owner.run)
    if dry_run:
        print(plan_text(plan, wanted))
        return
    outcome = _carry_out(plan, owner, wanted, keep=keep, remove_leftovers=remove_leftovers)
    _show(outcome)
    raise typer.Exit(outcome.exit_code)


def _carry_out(plan: Plan, owner: Owner, wanted: Wanted, *, keep: bool, remove_leftovers: bool) -> Outcome:
    try:
        with connected() as engine:
            _offer_removal(engine, screen := Screen(), unasked=remove_leftovers)
            with screen:
                return measure(plan, engine, owner, screen, wanted=wanted, keep=keep)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Stopped. Finished episodes are kept in {plan.matrix.out}. Run the same command again to go on."
        ) from error


def _require_no_flags(context: typer.Context) -> None:
    """`eval-stack --dry-run clean` would clean."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            verb = context.invoked_subcommand
            raise InvalidMatrix(
                f"{parameter.opts[0]} stands before the command {verb!r}, where it has no effect. Leave it out: "
                f"eval-stack {verb}.",
                field=parameter.opts[0],
            )


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidMatrix(
            f"--serve-args {text!r} is no list of flags: {error}. Write them as in a shell, such as "
            "--serve-args '--batch-sizes 1,4'.",
            field="--serve-args",
        ) from error


def _wanted(build: bool, pull: bool, no_build: bool) -> Wanted:
    chosen = [flag for flag, given in (("--build", build), ("--pull", pull), ("--no-build", no_build)) if given]
    if len(chosen) > 1:
        raise InvalidMatrix(f"{chosen[0]} and {chosen[1]} contradict each other. Pass one of them.", field=chosen[1])
    return "build" if build else "pull" if pull else "never" if no_build else "missing"


def _matrix(file: Path | None, flags: dict[str, Any]) -> Matrix:
    """What the flags say, then what the file says, then the defaults."""
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    known = {**(read_matrix_file(file) if file else {}), **given}
    if "out" not in known:
        raise InvalidMatrix(
            "No folder for results is named. Pass --out results/NAME, or --matrix FILE.yaml with the key out.",
            field="--out",
        )
    return Matrix(**{"checkpoints": (), "tasks": (), **known})


def _offer_removal(engine: DockerClient, screen: Screen, *, unasked: bool) -> None:
    leftovers = find_leftovers(engine)
    if not leftovers.names:
        return
    names = ", ".join(leftovers.names)
    screen.say(f"Left of earlier runs, whose processes are gone: {names}.")
    if unasked or screen.asks("Remove them?"):
        leftovers.remove()
        screen.say("They are removed.")
    else:
        screen.say("They stay. `eval-stack clean`, or --remove-leftovers, removes them.")


def _show(outcome: Outcome) -> None:
    for row in outcome.results.rows:
        rate = row.summary["success_once"]["text"] if row.summary else row.problem
        print(f"{row.checkpoint.name} on {row.task}: {rate}")
    for key in ("by_task", "result"):
        if sentence := outcome.results.comparison.get(key):
            print(sentence)
    for name in outcome.failed:
        print(f"{name} was not measured to the end; the report tells why.")
    print(f"Report: {outcome.report}")
