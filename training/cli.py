"""`train`: experiments by name, and the verbs on demonstrations and datasets."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from policy_protocol.errors import ChunkwireError, did_you_mean
from training.commands.check import check_command
from training.commands.convert import convert_command
from training.commands.export import export_command
from training.commands.list_experiments import list_command
from training.commands.merge import merge_command
from training.commands.recipe import recipe_command
from training.commands.stats import stats_command
from training.exhaustion import explained
from training.experiment import ExperimentInvalid

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train a policy: `train EXPERIMENT --exp-name NAME`. The verbs below prepare its dataset.",
)
_VERBS = ("run", "list", "convert", "check", "stats", "merge", "export", "recipe")

app.command("list")(list_command)
app.command("convert")(convert_command)
app.command("check")(check_command)
app.command("stats")(stats_command)
app.command("merge")(merge_command)
app.command("export")(export_command)
app.command("recipe")(recipe_command)


@app.command("run")
def run_command(
    experiment: Annotated[str, typer.Argument(help="Name of an experiment; see `train list`.")],
    exp_name: Annotated[str, typer.Option(help="Name of the run: the folder RUNS/EXPERIMENT/NAME.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="LeRobot datasets: paths or Hub ids OWNER/NAME[@REVISION], with commas between them, and =WEIGHT "
            "behind each that does not weigh 1: datasets/a=2,datasets/b. Default: the experiment's own."
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: --set optimizer.peak_lr=1e-4. Repeatable.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from: path or URL of a step, its params, a model.safetensors or an .npz. A URL is "
            "downloaded once, into $CHUNKWIRE_CACHE or ~/.cache/chunkwire: delete its folder there to download it anew."
        ),
    ] = None,
    init_fresh: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of leaves that may start at random though --init has others. Repeatable."),
    ] = None,
    ignore_check: Annotated[
        list[str] | None,
        typer.Option(help="Train in spite of what this check finds in the dataset, see `train check`. Repeatable."),
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Train without the frames that cannot be decoded, and count them.")
    ] = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="Also log to Weights & Biases.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete a run of that name and start anew.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    coordinator: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Train in several processes, on as many machines: the same command in each, with this address of "
            "process 0 and the next two options.",
        ),
    ] = None,
    num_processes: Annotated[int | None, typer.Option(help="How many processes train together.")] = None,
    process_id: Annotated[int | None, typer.Option(help="Which of them this is, counted from 0.")] = None,
    distributed: Annotated[
        bool,
        typer.Option("--distributed", help="Ask the cluster for these three: Slurm, Open MPI, Kubernetes, TPU."),
    ] = False,
    join_timeout: Annotated[
        int, typer.Option(help="Seconds that the processes may take to come together.", min=1)
    ] = 300,
) -> None:
    """Train an experiment. `train EXPERIMENT …` is short for `train run EXPERIMENT …`."""
    if overwrite and resume:
        raise typer.BadParameter("Pass --overwrite or --resume, not both.")
    from training.experiment import override
    from training.experiments import find_experiment
    from training.parallel.membership import Membership, joined

    named = {"dataset": dataset, "init": init, "init_fresh": init_fresh or None}
    membership = Membership(coordinator, num_processes, process_id, distributed, join_timeout)
    chosen = [f"{name}={json.dumps(value)}" for name, value in named.items() if value is not None]
    configured = override(find_experiment(experiment), [*chosen, *(settings or [])])
    from training.pi05.compile_cache import use_compile_cache

    use_compile_cache()
    try:
        with joined(membership) as processes:
            from training.loop import train  # heavy: a process that cannot join says so before

            step = train(
                configured,
                exp_name,
                runs,
                overwrite=overwrite,
                resume=resume,
                ignore_checks=ignore_check or (),
                skip_corrupt=skip_corrupt,
                wandb=wandb,
                processes=processes,
            )
    except KeyboardInterrupt:
        print("train: interrupted; frames that were decoded and steps that were saved are kept.", file=sys.stderr)
        raise typer.Exit(130) from None
    if processes.leads:
        print(f"Trained. Serve it: serve --checkpoint {step}")


def main() -> None:
    """Entry point: errors become one plain line and an exit code."""
    # Reads of a damaged checkpoint outlive their failed restore and report here, from other threads.
    sys.unraisablehook = lambda unraisable: logging.debug("in the background: %r", unraisable.exc_value)
    for name in ("absl", "asyncio"):  # so do the writes of a save that failed, each at length; the save itself raises
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        if len(sys.argv) > 1 and not sys.argv[1].startswith("-") and sys.argv[1] not in _VERBS:
            _require_experiment(sys.argv[1])
            sys.argv.insert(1, "run")
        app()
    except (ChunkwireError, OSError, RuntimeError) as error:
        told = explained(error)
        if not isinstance(told, ChunkwireError):
            raise
        print(f"train: {told.message}", file=sys.stderr)
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _require_experiment(name: str) -> None:
    """`train NAME`: neither a verb nor an experiment is most likely a slip in one of the two."""
    from training.experiments import experiment_names

    if name not in experiment_names():
        raise ExperimentInvalid(
            f"{name!r} is neither an experiment nor a verb.{did_you_mean(name, (*experiment_names(), *_VERBS))} "
            "See the experiments: train list."
        )
