"""Films of episodes: which are made, and how one is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from sim_client.episode.record import EpisodeRecord
from sim_client.errors import InvalidOption, RecordsError
from sim_client.option_checks import require_at_least
from sim_client.simulator import SimulationSettings

if TYPE_CHECKING:  # PyAV takes a while to load, and only films need it
    import av.container
    import av.video

__all__ = ["VIDEOS", "EpisodeVideo", "VideoRules"]

VIDEOS = "videos"
"""Folder of the films in a results directory; a film is `seed_<seed>_<outcome>.mp4`."""

_CHOICES = ("none", "all", "failures")


@dataclass(frozen=True)
class VideoRules:
    """The choices of `--video`, `--video-stride` and `--video-size`.

    Raises:
        InvalidOption: a value cannot be used; the message names the flag.
    """

    which: str = "none"
    """`none`, `all`, `failures` (whatever is no success), or a number: the first N of the run's list."""
    stride: int = 2
    """Steps from one frame to the next; each is a rendering more, and time on a CPU."""
    size: tuple[int, int] = (512, 512)
    """Height and width in pixels, even as H.264 wants them."""

    def __post_init__(self) -> None:
        if self.which not in _CHOICES and not self.which.isdecimal():
            raise InvalidOption(
                f"--video must be none, all, failures or a number of episodes, not {self.which!r}.", field="--video"
            )
        require_at_least("--video-stride", self.stride, 1)
        if any(side < 2 or side % 2 for side in self.size):
            height, width = self.size
            raise InvalidOption(
                f"--video-size {height}x{width} cannot be encoded. Pass even numbers of pixels from 2.",
                field="--video-size",
            )

    def check(self, settings: SimulationSettings) -> None:
        """Raises `InvalidOption` when films are wanted of a simulation that renders nothing."""
        if self.which != "none" and settings.render_backend == "none":
            raise InvalidOption(
                f"--video {self.which} needs a renderer, but --render-backend is none. Pass --render-backend cpu.",
                field="--video",
            )

    def films(self, index: int) -> bool:
        """Whether the episode at place `index` of the run's list is filmed at all."""
        if self.which in _CHOICES:
            return self.which != "none"
        return index < int(self.which)

    def keeps(self, record: EpisodeRecord) -> bool:
        """Whether the film of a finished episode is kept."""
        return self.which != "failures" or record.outcome != "success"


class EpisodeVideo:
    """The film of one episode, in real time; written under a draft's name until the outcome is known.

    Args:
        folder: `videos/` of the results directory, made when there is something to write.
        rules: size, stride, and whether the film is kept.
        seed: the episode's.
        control_freq: steps per second.
    """

    def __init__(self, folder: Path, rules: VideoRules, seed: int, control_freq: int) -> None:
        self._folder, self._rules, self._seed = folder, rules, seed
        self._draft = folder / f".seed_{seed}.{os.getpid()}.draft"
        self._tick = Fraction(1, control_freq)
        self._file: av.container.OutputContainer | None = None
        self._stream: av.video.VideoStream | None = None

    def moved(self, steps: int, is_over: bool, film: Callable[[int, int], UInt8[np.ndarray, "height width 3"]]) -> None:
        """Take a frame where one is due: at the start, at every stride, and at the end.

        Raises:
            RecordsError: the film cannot be written.
        """
        if steps % self._rules.stride == 0 or is_over:
            frame = film(*self._rules.size)
            self._writing(lambda: self._add(frame, steps))

    def keep(self, record: EpisodeRecord) -> None:
        """Give the film its name, or delete it when this outcome is not wanted. Raises `RecordsError`."""
        self._writing(self._finish)
        self._forget_earlier_attempts()
        if not self._rules.keeps(record):
            self.drop()
            return
        self._writing(lambda: self._draft.replace(self._folder / f"seed_{self._seed}_{record.outcome}.mp4"))

    def drop(self) -> None:
        """Leave nothing of a film that is not kept; doing it twice is fine."""
        if self._file is not None:
            file, self._file = self._file, None
            self._quietly_close(file)
        with suppress(OSError):  # no folder, no draft
            self._draft.unlink(missing_ok=True)

    def _add(self, image: UInt8[np.ndarray, "height width 3"], steps: int) -> None:
        import av

        if self._file is None:
            self._open()
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = steps, self._tick
        self._file.mux(self._stream.encode(frame))

    def _open(self) -> None:
        import av

        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = av.open(str(self._draft), "w", format="mp4", options={"movflags": "+faststart"})
        stream = self._file.add_stream("libx264", rate=1 / (self._tick * self._rules.stride))
        stream.height, stream.width = self._rules.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = self._tick
        stream.codec_context.thread_count = 1  # workers share the cores; and the same frames give the same file
        stream.options = {"preset": "veryfast", "crf": "23"}
        self._stream = stream

    def _finish(self) -> None:
        if self._file is None:
            return
        self._file.mux(self._stream.encode(None))
        file, self._file = self._file, None
        file.close()

    def _forget_earlier_attempts(self) -> None:
        """Drafts of workers that were killed, and films whose episode has no record, since it is run again."""
        drafts = set(self._folder.glob(f".seed_{self._seed}.*.draft")) - {self._draft}
        for path in (*drafts, *self._folder.glob(f"seed_{self._seed}_*.mp4")):
            path.unlink(missing_ok=True)

    def _quietly_close(self, file: av.container.OutputContainer) -> None:
        import av

        with suppress(OSError, av.FFmpegError):  # it is deleted anyway
            file.close()

    def _writing(self, write: Callable[[], Any]) -> None:
        import av

        try:
            write()
        except (OSError, av.FFmpegError) as error:
            raise RecordsError(
                f"The video of episode seed {self._seed} cannot be written to {self._folder}: "
                f"{(error.strerror or str(error)).lower()}. Make room and run the same command again, "
                "or pass --video none."
            ) from error
