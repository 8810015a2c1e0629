"""`train convert`: ManiSkill recordings to a LeRobot dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.data.conversion.convert import convert
from training.data.conversion.recording import GivenFacts
from training.data.lerobot.facts import DatasetFacts
from training.data.lerobot.writing.dataset_writer import DatasetFormat

__all__ = ["convert_command"]


def convert_command(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RECORDING.h5… DATASET", help="One recording or several, then the folder.")
    ],
    format: Annotated[DatasetFormat, typer.Option("--format", help="LeRobot's version of the layout.")] = "v3.0",
    video: Annotated[bool, typer.Option("--video", help="Store frames as H.264 video: smaller, not exact.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Part of the state, such as 'agent/qpos[0:8]'; repeat for more parts."),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Instruction, in place of the recorded one.")] = None,
    fps: Annotated[int | None, typer.Option("--fps", help="Control frequency in Hz, if not recorded.")] = None,
    sim_freq: Annotated[
        int | None, typer.Option("--sim-freq", help="Physics frequency in Hz, if not recorded.")
    ] = None,
    robot_uids: Annotated[str | None, typer.Option("--robot-uids", help="ManiSkill robot, if not recorded.")] = None,
    control_mode: Annotated[
        str | None, typer.Option("--control-mode", help="ManiSkill control mode, if not recorded.")
    ] = None,
    drop_idle_start: Annotated[
        bool,
        typer.Option(
            "--drop-idle-start",
            help="Leave out the steps before the hand's first move in which the gripper rests too, but for the first.",
        ),
    ] = False,
    include_failures: Annotated[
        bool, typer.Option("--include-failures", help="Also take episodes that did not reach the goal.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that read and encode episodes.")] = min(
        8, os.cpu_count() or 1
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the dataset that is there.")] = False,
) -> None:
    """Convert ManiSkill demonstrations to a LeRobot dataset with its simulation facts and norm stats.

    A conversion that was interrupted goes on where it was when it is started again.
    """
    *sources, out = paths
    if not sources:
        raise typer.BadParameter("Name the recording and the dataset: train convert demos/x.h5 datasets/x")
    facts = convert(
        sources,
        out,
        format=format,
        images="video" if video else "image",
        state=state or None,
        given=GivenFacts(prompt, fps, sim_freq, robot_uids, control_mode),
        drop_idle_start=drop_idle_start,
        include_failures=include_failures,
        overwrite=overwrite,
        workers=workers,
    )
    _report(out, facts)


def _report(out: Path, facts: DatasetFacts) -> None:
    lengths = facts.demonstration_length
    state = ", ".join(f"{part.source}[{part.start}:{part.stop}]" for part in facts.state_fields)
    cameras = ", ".join(f"{camera.key} {camera.width}x{camera.height}" for camera in facts.cameras)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{out}: {', '.join(facts.env_ids)}, {facts.control_mode} at {facts.control_freq} Hz")
    console.print(f"  cameras  {cameras}")
    console.print(f"  state    {state}")
    console.print(
        f"  length   median {lengths['q50']:.0f}, 95% {lengths['q95']:.0f}, longest {lengths['max']:.0f} steps"
    )
    if facts.idle_steps_left_out:
        console.print(f"  left out {facts.idle_steps_left_out} idle steps at the episodes' starts")
    console.print(f"  content  {facts.fingerprint[:16]}")
