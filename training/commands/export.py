"""`train export`: a checkpoint to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export_command"]


def export_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Step directory.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Step directory to write; it must not exist.")],
    spec: Annotated[
        str | None, typer.Option(help="Spec of a checkpoint without one: a file, or the name of a released policy.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer of a checkpoint without one: path or URL.")] = None,
) -> None:
    """Export a checkpoint's policy: its served weights in bfloat16 with LoRA merged, its spec and its tokenizer."""
    from training.export import export_checkpoint  # jax takes seconds to load

    done = export_checkpoint(checkpoint, out, spec=spec, tokenizer=tokenizer)
    merged = f", {done.merged} LoRA leaves merged" if done.merged else ""
    print(f"Exported {done.parameters:,} parameters{merged}: {_told(done.size)}, of {_told(done.size_before)}.")
    print(f"Serve it: serve --checkpoint {out}")


def _told(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
