"""Flags that say what is kept of an episode beside its record. None of them changes a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from sim_client.commands.pixel_size import parse_size
from sim_client.episode.video import VideoRules

__all__ = ["RecordingFlags"]


@dataclass(frozen=True)
class RecordingFlags:
    """Films, and what the policy was shown."""

    video: Annotated[
        str, typer.Option(metavar="N|all|failures|none", help="Film the first N episodes, all, or those that fail.")
    ] = "none"
    video_stride: Annotated[int, typer.Option(help="Steps from one frame of a film to the next.")] = 2
    video_size: Annotated[str, typer.Option(metavar="N|HxW", help="Pixels of a film.")] = "512"
    save_observations: Annotated[
        bool, typer.Option("--save-observations", help="Keep all that was sent to the policy, and its chunks, as .npz.")
    ] = False

    def rules(self) -> VideoRules:
        """Raises `InvalidOption`."""
        return VideoRules(self.video, self.video_stride, parse_size("--video-size", self.video_size))
