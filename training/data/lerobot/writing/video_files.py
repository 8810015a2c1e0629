"""Writes the frames of one camera into mp4 files, as LeRobot lays them out.

Codec: H.264 (libx264). It is in PyAV's wheel and in every FFmpeg, browser and hardware decoder, where LeRobot's own
AV1 needs dav1d; LeRobot reads either. Constant rate factor 18 is visually lossless; a key frame every second frame, as
in LeRobot, makes random access cheap; no B-frames, so that decoding order is display order. What is lost is mostly
colour at sharp edges (4:2:0); images keep every pixel.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream
from jaxtyping import UInt8

from training.data.errors import DatasetInvalid
from training.data.lerobot.metadata import Feature
from training.data.lerobot.writing.parquet_files import FILES_IN_CHUNK, Place, next_place

__all__ = ["VIDEO_FILE_MB", "VIDEO_PATHS", "VideoFiles", "video_info"]

VIDEO_FILE_MB = 200
VIDEO_PATHS = {
    "v2.1": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    "v3.0": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
_PIXEL_FORMAT = "yuv420p"
_OPTIONS = {"crf": "18", "g": "2", "bf": "0", "preset": "fast"}


def video_info(feature: Feature, fps: float) -> dict[str, object]:
    """The `info` of a video feature in `meta/info.json`."""
    height, width = feature.image_size
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": _PIXEL_FORMAT,
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


class VideoFiles:
    """The mp4 files of one camera: one for each episode (v2.1), or a new one every 200 MB (v3.0).

    Raises:
        DatasetInvalid: the frames' size is odd, which the pixel format cannot hold.
    """

    def __init__(self, root: Path, version: str, key: str, feature: Feature, fps: float) -> None:
        height, width = feature.image_size
        if height % 2 or width % 2:
            raise DatasetInvalid(
                f"Frames of camera {key!r} are {width}x{height}: video needs even numbers. Convert without --video."
            )
        self.root, self.version, self.key, self.size = root, version, key, (height, width)
        self.fps = Fraction(fps).limit_denominator(1001)
        self.place: Place = (0, 0)
        self._path = root
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._frames = 0

    def add(self, episode: int, frames: UInt8[np.ndarray, "frames height width 3"]) -> tuple[Place, float, float]:
        """Encode one episode; returns its file and the seconds at which it starts and stops there."""
        self._make_room(episode)
        assert self._container is not None
        assert self._stream is not None
        start = self._frames
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = start + number, 1 / self.fps
            if number == 0:
                picture.pict_type = PictureType.I
            self._container.mux(self._stream.encode(picture))
        self._frames += len(frames)
        return self.place, float(start / self.fps), float(self._frames / self.fps)

    def close(self) -> None:
        """Finish the open file."""
        if self._container is not None and self._stream is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
        self._container, self._stream, self._frames = None, None, 0

    def _make_room(self, episode: int) -> None:
        if self.version == "v2.1":
            self.close()
            self.place = divmod(episode, FILES_IN_CHUNK)
        elif self._container is not None and self._path.stat().st_size >= VIDEO_FILE_MB << 20:
            self.close()
            self.place = next_place(self.place)
        if self._container is None:
            self._open(episode)

    def _open(self, episode: int) -> None:
        chunk, file = self.place
        names = {"episode_chunk": chunk, "chunk_index": chunk, "episode_index": episode, "file_index": file}
        self._path = self.root / VIDEO_PATHS[self.version].format(video_key=self.key, **names)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._path), "w")
        self._stream = self._container.add_stream("libx264", rate=self.fps, options=_OPTIONS)
        self._stream.height, self._stream.width = self.size
        self._stream.pix_fmt = _PIXEL_FORMAT
