"""The flags of `serve` that say which weights are served, and on what."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Attention",
    "AttentionFlag",
    "Checkpoint",
    "CompileCache",
    "Devices",
    "Dtype",
    "Follow",
    "FollowOnRequest",
    "Shard",
]


class Attention(StrEnum):
    """How attention is computed; see `training.pi05.model.attention`."""

    PLAIN = "plain"
    XLA = "xla"
    CUDNN = "cudnn"


Checkpoint = Annotated[
    str | None, typer.Option(help="Step directory of a checkpoint, such as runs/…/29999, or its URL (gs://…).")
]
Follow = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN_DIR",
        help="Instead of a checkpoint, a run that trains: its newest step, and every newer one in place.",
    ),
]
FollowOnRequest = Annotated[
    bool,
    typer.Option(
        "--follow-on-request",
        help="With --follow: load the step that a client asks for (older or newer, for all clients), none by itself.",
    ),
]
Dtype = Annotated[
    str | None, typer.Option(help="bfloat16 or float32. Default: bfloat16 on an accelerator, float32 on a CPU.")
]
Devices = Annotated[int, typer.Option(min=1, help="Devices to use; each gets a copy of the weights.")]
Shard = Annotated[
    bool, typer.Option("--shard", help="Cut one copy of the weights over the devices, for a model too large for one.")
]
AttentionFlag = Annotated[
    Attention, typer.Option("--attention", help="Kernel of the attention; cudnn is for NVIDIA GPUs and bfloat16.")
]
CompileCache = Annotated[
    Path | None, typer.Option(help="Directory that keeps compiled programs. Default: the user's cache.")
]
