"""`sim-client sweep RUN_DIR --env …`: success over the checkpoints of a training run."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from policy_protocol.errors import ServerUnavailable
from sim_client.commands.episode_flags import EpisodeFlags
from sim_client.commands.flag_groups import with_flag_groups
from sim_client.commands.known_environment import require_known
from sim_client.commands.policy_flags import PolicyFlags
from sim_client.commands.recording_flags import RecordingFlags
from sim_client.commands.series_report import run_and_report
from sim_client.commands.series_table import show_table
from sim_client.commands.staff_flags import StaffFlags
from sim_client.commands.step_flags import StepFlags
from sim_client.episode.environment import open_environment
from sim_client.errors import Interrupted
from sim_client.evaluation.checkpoints import Checkpoints, FollowingServer, ServerPerStep
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.run import run_evaluation
from sim_client.evaluation.sweep import Sweep
from sim_client.results.options import EvaluationOptions
from sim_client.results.sweep_curve import SweepCurve
from sim_client.results.sweep_report import HEADER, row_of, sweep_json, write_sweep_report
from sim_client.results.training_loss import TrainingLoss

__all__ = ["sweep_command"]


@with_flag_groups
def sweep_command(
    context: typer.Context,
    run_dir: Annotated[
        Path,
        typer.Argument(
            help="Folder of the training run; read for its training loss, where it is here.", metavar="RUN_DIR"
        ),
    ],
    env: Annotated[str, typer.Option(help="ManiSkill task, such as StackCube-v1.")],
    *,
    steps: StepFlags,
    policy: PolicyFlags,
    episodes: EpisodeFlags,
    recording: RecordingFlags,
    staff: StaffFlags,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a directory per step; by default results/ENV/sweep-RUN-seedSEED.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the results of these steps first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure every checkpoint of a training run on the same episodes: success beside the training loss.

    One server loads the steps when asked (`serve --follow RUN --follow-on-request`), or each step has its own. Running
    the same command again goes on where it stopped.
    """
    console = Console(stderr=True, highlight=False)
    options, dial = episodes.options(env), policy.dial()
    steps.check(context)
    require_known(env, console)
    evaluate = partial(
        run_evaluation,
        video=recording.rules(),
        save_observations=recording.save_observations,
        staff=staff.staff(),
        overwrite=overwrite,
        console=console,
        open_environment=context.obj or open_environment,
    )
    folder = out or _default_folder(run_dir, options)
    with ExitStack() as stack:
        sweep, checkpoints = _connect(stack, folder, steps, options, dial, console)
        stop_at = () if steps.servers else (ServerUnavailable,)
        run_and_report(
            sweep.series,
            run=lambda: sweep.run(checkpoints, evaluate, console, overwrite=overwrite, stop_at=stop_at),
            write=lambda: _write(sweep, run_dir),
            show=lambda curve: _show(sweep, curve, as_json),
        )


def _default_folder(run_dir: Path, options: EvaluationOptions) -> Path:
    run = run_dir.resolve()
    return Path("results") / options.env_id / f"sweep-{run.parent.name}-{run.name}-seed{options.seed}"


def _connect(
    stack: ExitStack, folder: Path, steps: StepFlags, options: EvaluationOptions, dial: Dial, console: Console
) -> tuple[Sweep, Checkpoints]:
    try:
        if servers := steps.by_step():
            per_step = ServerPerStep(servers, dial)
            return Sweep(folder, steps.choose(per_step.steps), options), per_step
        client = stack.enter_context(dial.connect(lambda text: console.print(text, markup=False, soft_wrap=True)))
        following = FollowingServer(client, dial)
        chosen = steps.choose(following.steps)
        return Sweep(folder, chosen, options, client.spec.policy.checkpoint), following
    except KeyboardInterrupt as error:
        raise Interrupted("Stopped while setting up. Run the same command again.") from error


def _write(sweep: Sweep, run_dir: Path) -> SweepCurve | None:
    results = {int(name): directory for name, directory in sweep.series.results().items()}
    if not results:
        return None
    curve = SweepCurve.read(results, TrainingLoss.read(run_dir, sweep.run_id))
    write_sweep_report(sweep.series.folder, curve, _untold(sweep))
    return curve


def _untold(sweep: Sweep) -> dict[str, str]:
    """What the results of the steps do not tell by themselves."""
    failed, results = sweep.series.failed, sweep.series.results()
    return {step: why for step, why in sweep.series.unfinished().items() if step in failed or step not in results}


def _show(sweep: Sweep, curve: SweepCurve | None, as_json: bool) -> None:
    if curve is None:
        return
    page = sweep.series.folder / "sweep.html"
    if as_json:
        print(json.dumps({"report": str(page), **sweep_json(curve, sweep.series.unfinished())}, indent=2))
        return
    notes = (f"Note: {text}" for text in (curve.note, *curve.warnings) if text)
    show_table(HEADER, map(row_of, curve.points), ("", *notes, curve.sentence, f"Report: {page}"))
