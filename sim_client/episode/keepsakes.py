"""What is kept of an episode beside its record: its film, and what was sent and answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from policy_protocol import ActionChunk
from sim_client.episode.observation_log import OBSERVATIONS, ObservationLog
from sim_client.episode.question import Question
from sim_client.episode.record import EpisodeRecord
from sim_client.episode.video import VIDEOS, EpisodeVideo, VideoRules

__all__ = ["NOTHING", "EpisodeKeepsakes", "Keepsakes"]


@dataclass(frozen=True)
class Keepsakes:
    """What is kept of a run's episodes, and where."""

    directory: Path = Path()
    """The results directory."""
    video: VideoRules = field(default_factory=VideoRules)
    observations: bool = False
    """Whether everything that is sent is kept."""

    def of_episode(self, index: int, seed: int, control_freq: int) -> EpisodeKeepsakes:
        """Those of one attempt at one episode."""
        video = EpisodeVideo(self.directory / VIDEOS, self.video, seed, control_freq)
        log = ObservationLog(self.directory / OBSERVATIONS)
        return EpisodeKeepsakes(video if self.video.films(index) else None, log if self.observations else None)


NOTHING = Keepsakes()
"""Keeps nothing but the records."""


class EpisodeKeepsakes:
    """Kept when `keep` is called, and gone when the block ends without it: a void attempt leaves nothing.

    ```
    with keepsakes.of_episode(…) as kept:
        …
        kept.keep(record)
    ```
    """

    def __init__(self, video: EpisodeVideo | None, log: ObservationLog | None) -> None:
        self._video, self._log = video, log

    def answered(self, question: Question, chunk: ActionChunk) -> None:
        """Take what the policy was asked and answered."""
        if self._log is not None:
            self._log.answered(question, chunk)

    def moved(self, steps: int, is_over: bool, film: Callable[[int, int], UInt8[np.ndarray, "height width 3"]]) -> None:
        """Take what can be seen after the reset, and after every step.

        Args:
            steps: actions executed.
            is_over: whether this was the last one.
            film: renders a frame of this height and width; called when one is due.

        Raises:
            RecordsError: the film cannot be written.
        """
        if self._video is not None:
            self._video.moved(steps, is_over, film)

    def keep(self, record: EpisodeRecord) -> None:
        """Write everything under its final name. Raises `RecordsError`."""
        if self._log is not None:
            self._log.keep(record)
        if self._video is not None:
            self._video.keep(record)

    def __enter__(self) -> EpisodeKeepsakes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._video is not None:
            self._video.drop()
