"""Decodes the frames of a video dataset: mp4 files, one or many episodes in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8

from training.data.errors import FrameCorrupt
from training.data.lerobot.metadata import Episode

__all__ = ["iterate_video"]


def iterate_video(
    episode: Episode, key: str, fps: float, wanted: Sequence[int]
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Decode the frames numbered `wanted` (ascending, from the episode's beginning), one at a time.

    A frame is found by its timestamp, as in LeRobot, to within half a frame.

    Raises:
        FrameCorrupt: the file is missing, damaged or too short; names the file, the episode and the frame.
    """
    path = episode.videos[key].path
    frames = iter(wanted)
    frame = next(frames, None)
    if frame is None:
        return
    try:
        with av.open(str(path)) as container:
            for number, picture in _numbered(container, episode.videos[key].start, fps, frame):
                if number == frame:
                    if picture.is_corrupt:
                        raise _corrupt(episode, key, frame, "the decoder had to make up a part of it")
                    yield picture.to_ndarray(format="rgb24")
                    frame = next(frames, None)
                if frame is None:
                    return
                if number > frame:
                    raise _corrupt(episode, key, frame, "the video has no picture at its time")
    except (av.FFmpegError, OSError, IndexError) as error:
        reason = getattr(error, "strerror", None) or str(error)  # FFmpeg's own number and the path again say no more
        raise _corrupt(episode, key, frame, reason) from error
    raise _corrupt(episode, key, frame, "the video ends before it")


def _numbered(
    container: av.container.InputContainer, start: float, fps: float, first: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode from the key frame at or before frame `first` on, each picture with its number in the episode."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    tick = stream.time_base or Fraction(1, 1)
    begin = start + first / fps
    if begin > 0:
        container.seek(int((begin + 0.25 / fps) / tick), stream=stream)  # a little later, against rounding down
    for picture in container.decode(stream):
        if picture.pts is not None:
            number = round((float(picture.pts * tick) - start) * fps)
            if number >= first:
                yield number, picture


def _corrupt(episode: Episode, key: str, frame: int, reason: str) -> FrameCorrupt:
    row = episode.start + frame
    return FrameCorrupt(
        f"Frame {frame} of episode {episode.index} (row {row}, camera {key!r}) in {episode.videos[key].path} cannot "
        f"be decoded: {reason}. Convert or download the dataset again, or pass --skip-corrupt."
    )
