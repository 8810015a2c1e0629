"""`sim-client --env …`: measure the policy that a server runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from policy_protocol import did_you_mean
from sim_client.commands.report import show_result
from sim_client.episode.environment import open_environment
from sim_client.errors import IncompleteRun, InvalidOption, UnknownEnvironment
from sim_client.evaluation.run import run_evaluation
from sim_client.policy_client import PolicyClient
from sim_client.results.directory import report_path
from sim_client.results.options import DEFAULT_SEED, EvaluationOptions
from sim_client.tasks import TASKS

__all__ = ["evaluate_command"]


def evaluate_command(
    context: typer.Context,
    env: Annotated[str | None, typer.Option(help="ManiSkill task, such as StackCube-v1.")] = None,
    episodes: Annotated[int, typer.Option(help="Episodes to run; episode i is reset with seed + i.")] = 20,
    server: Annotated[
        str,
        typer.Option(
            metavar="URL[,URL…]",
            help="Policy server, ws://, wss://, grpc:// or grpcs://; several of one policy take turns.",
        ),
    ] = "ws://127.0.0.1:8000",
    seed: Annotated[int, typer.Option(help="Seed of the first episode.")] = DEFAULT_SEED,
    run_seed: Annotated[int, typer.Option(help="Base of the policy's noise.")] = 0,
    prompt: Annotated[str | None, typer.Option(help="Instruction, instead of the task's own.")] = None,
    robot: Annotated[str | None, typer.Option(help="Robot, instead of the one in the policy's spec.")] = None,
    control_mode: Annotated[str | None, typer.Option(help="Controller, instead of the spec's.")] = None,
    control_freq: Annotated[int | None, typer.Option(help="Actions per second, instead of the spec's.")] = None,
    sim_freq: Annotated[int | None, typer.Option(help="Physics steps per second, instead of the spec's.")] = None,
    camera_size: Annotated[
        str | None, typer.Option(help="Pixels, N or HEIGHTxWIDTH, instead of the spec's.", metavar="N|HxW")
    ] = None,
    max_episode_steps: Annotated[int | None, typer.Option(help="Episode limit, instead of the spec's.")] = None,
    execution_horizon: Annotated[
        int | None, typer.Option(help="Actions of a chunk to run before asking again, instead of the spec's.")
    ] = None,
    settle: Annotated[int, typer.Option(help="Steps to go on after the first success, then end the episode.")] = 10,
    run_to_limit: Annotated[
        bool, typer.Option("--run-to-limit", help="Go on to the episode limit after a success (slower).")
    ] = False,
    allow_mismatch: Annotated[
        list[str] | None,
        typer.Option(help="Run although this spec field differs from training; repeatable.", metavar="FIELD"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Results directory; by default results/ENV/POLICY-seedSEED.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the results that are there.")] = False,
    retries: Annotated[int, typer.Option(help="New attempts for an episode after an infrastructure error.")] = 2,
    connect_timeout: Annotated[float, typer.Option(help="Seconds to wait for a server that does not answer.")] = 30.0,
    reply_timeout: Annotated[float, typer.Option(help="Seconds after which a silent server counts as lost.")] = 300.0,
    api_key_file: Annotated[Path | None, typer.Option(help="File whose first line is the server's API key.")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) to trust for wss:// and grpcs://, instead of the system's.")
    ] = None,
    render_backend: Annotated[
        str, typer.Option(help="Where images are rendered: cpu or gpu; none for a policy without cameras.")
    ] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure a served policy in ManiSkill: success with its interval, one record per episode, a report.

    The simulator is set up from the spec that the server sends, and a difference from training is refused. Running the
    same command again goes on where it stopped.
    """
    if context.invoked_subcommand is not None:
        _require_no_options(context)
        return
    options = EvaluationOptions(
        env_id=_required_env(env),
        episodes=episodes,
        seed=seed,
        run_seed=run_seed,
        prompt=prompt,
        robot_uids=robot,
        control_mode=control_mode,
        sim_freq=sim_freq,
        control_freq=control_freq,
        camera_size=_parse_size(camera_size),
        max_episode_steps=max_episode_steps,
        execution_horizon=execution_horizon,
        settle_steps=None if run_to_limit else settle,
        render_backend=render_backend,
        retries=retries,
        allow_mismatch=tuple(allow_mismatch or ()),
    )
    console = Console(stderr=True, highlight=False)
    api_key = _read_key(api_key_file)

    def connect() -> PolicyClient:
        return PolicyClient(
            server,
            connect_timeout=connect_timeout,
            reply_timeout=reply_timeout,
            api_key=api_key,
            tls_ca=tls_ca,
            on_wait=lambda text: console.print(text, markup=False, soft_wrap=True),
        )

    _require_known(options.env_id, console)
    directory = run_evaluation(
        options,
        connect,
        out,
        overwrite=overwrite,
        console=console,
        open_environment=context.obj or open_environment,
    )
    _show(directory, as_json)


def _show(directory: Path, as_json: bool) -> None:
    summary = show_result(directory, as_json)
    if errors := summary.outcomes["error"]:
        raise IncompleteRun(
            f"{errors} of {summary.planned} episodes ended in an infrastructure error (see {report_path(directory)}). "
            "Run the same command again to repeat them."
        )


def _required_env(env: str | None) -> str:
    if env is None:
        raise InvalidOption(
            "Name the task to measure: sim-client --env StackCube-v1. `sim-client tasks` lists the tasks, "
            "`sim-client --help` the options and the other commands.",
            field="--env",
        )
    return env


def _require_known(env_id: str, console: Console) -> None:
    if env_id in TASKS:
        return
    console.print(f"{env_id} is none of the project's tasks; looking it up in ManiSkill …", markup=False)
    from sim_client.simulator import env_ids

    names = env_ids()
    if env_id not in names:
        raise UnknownEnvironment(f"Unknown environment {env_id!r}.{did_you_mean(env_id, names)}", field="--env")


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise InvalidOption(f"--camera-size must be N or HEIGHTxWIDTH in pixels, not {text!r}.", field="--camera-size")
    return int(sides[0]), int(sides[-1])


def _read_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        key = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise InvalidOption(f"--api-key-file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InvalidOption(f"--api-key-file {path} is no text file; its first line must hold the key.") from error
    if not key:
        raise InvalidOption(f"--api-key-file {path} has an empty first line; it must hold the key.")
    if not (key.isascii() and key.isprintable()):
        raise InvalidOption(f"--api-key-file {path}: its first line holds characters that no key has.")
    return key


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
