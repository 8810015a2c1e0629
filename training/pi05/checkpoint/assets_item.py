"""The `assets` folder as an item of an orbax checkpoint, written in the same atomic step as the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import etils.epath as epath
import orbax.checkpoint as ocp

__all__ = ["AssetsHandler", "SaveAssets"]


class AssetsHandler(ocp.CheckpointHandler):
    """Lets a function fill the folder."""

    def save(self, directory: epath.Path, args: SaveAssets) -> None:
        """Called by orbax with the folder, not yet at its final name."""
        args.write(Path(directory))

    def restore(self, directory: epath.Path, args: Any = None) -> None:
        """Never called: `read_assets` reads the folder."""
        raise NotImplementedError("Assets are read by training.pi05.checkpoint.step_directory.read_assets.")


@ocp.args.register_with_handler(AssetsHandler, for_save=True)
@dataclasses.dataclass
class SaveAssets(ocp.args.CheckpointArgs):
    """What to save as the `assets` item."""

    write: Callable[[Path], None]


@ocp.args.register_with_handler(AssetsHandler, for_restore=True)
@dataclasses.dataclass
class _RestoreAssets(ocp.args.CheckpointArgs):
    """orbax wants a pair; a restore never names the assets item."""
