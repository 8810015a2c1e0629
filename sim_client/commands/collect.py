"""`sim-client collect`: record demonstrations with ManiSkill's motion planner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sim_client.collect import DEFAULT_SEED, CollectionRequest, collect

__all__ = ["collect_command"]

_INTERRUPTED = 130
"""128 plus SIGINT's number, as shells report a program that Ctrl-C ended."""

_DEFAULT_WORKERS = min(os.cpu_count() or 1, 8)
"""One a core, at about 1 GB each."""


def collect_command(
    out: Annotated[Path, typer.Option(help="File to make, ending in .h5; the facts go into a .json beside it.")],
    env: Annotated[str, typer.Option(help="ManiSkill task, such as PushCube-v1.")] = "StackCube-v1",
    episodes: Annotated[
        int, typer.Option(help="Demonstrations to keep: the first seeds that the planner solves.")
    ] = 20,
    seed: Annotated[int, typer.Option(help="First seed to try, far above those of evaluations.")] = DEFAULT_SEED,
    workers: Annotated[int, typer.Option(help="Processes; the result is the same for any.")] = _DEFAULT_WORKERS,
    camera_size: Annotated[int, typer.Option(help="Height and width of every camera, in pixels.")] = 128,
    control_freq: Annotated[
        int, typer.Option(help="Actions per simulated second. Evaluations must use the same.")
    ] = 20,
    sim_freq: Annotated[int, typer.Option(help="Physics steps per simulated second.")] = 100,
    frame_stride: Annotated[
        int, typer.Option(help="Render every k-th step only and repeat the frame in between: faster, coarser.")
    ] = 1,
    render_backend: Annotated[str, typer.Option(help="What renders: cpu or gpu.")] = "cpu",
    skip_blocked: Annotated[
        bool,
        typer.Option(
            help="Where something blocks the hand (told to move, it stands still for 0.3 s), plan again from above; a "
            "task that has no such plan takes another seed."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Collect anew over what is at --out.")] = False,
) -> None:
    """Record demonstrations with ManiSkill's motion planner.

    Plans each episode, converts it to pd_ee_delta_pose, replays it with cameras and keeps it if the replay ends in
    success. Ctrl-C keeps what is finished; the same command goes on from there.
    """
    request = CollectionRequest(
        env_id=env,
        episodes=episodes,
        seed=seed,
        camera_size=camera_size,
        sim_freq=sim_freq,
        control_freq=control_freq,
        frame_stride=frame_stride,
        render_backend=render_backend,
        skip_blocked=skip_blocked,
    )
    try:
        collect(request, out, workers=workers, overwrite=overwrite)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
