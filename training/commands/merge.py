"""`train merge`: a LoRA checkpoint to plain weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["merge_command"]


def merge_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Step directory with LoRA leaves.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Step directory to write; it must not exist.")],
) -> None:
    """Merge a checkpoint's LoRA leaves into its weights, to be served or fine-tuned as a plain model."""
    from training.pi05.checkpoint.merge import merge_checkpoint  # jax takes seconds to load

    merged = merge_checkpoint(checkpoint, out)
    print(f"Merged {merged} LoRA leaves. Serve it: serve --checkpoint {out}")
