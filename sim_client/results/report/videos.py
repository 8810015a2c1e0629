"""The videos that lie beside a report."""

from __future__ import annotations

import base64
import io
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sim_client.episode.record import EpisodeRecord

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_THUMBNAILS", "Video", "find_videos", "thumbnail"]

MAX_THUMBNAILS = 30
"""Pictures in one report; about 6 kB each."""
_SIZE = (240, 240)
"""Largest width and height of a picture in pixels."""


@dataclass(frozen=True)
class Video:
    """The video of one episode."""

    record: EpisodeRecord
    link: str
    """Relative to the report."""
    picture: str | None
    """`data:` URI of the last frame as JPEG; None beyond `MAX_THUMBNAILS` and for a file that cannot be read."""


def find_videos(directory: Path, records: Sequence[EpisodeRecord]) -> Mapping[int, Video]:
    """Episode seed -> its video, where there is one. Pictures go to the episodes that did not succeed first."""
    names = {record.seed: f"videos/seed_{record.seed}_{record.outcome}.mp4" for record in records}
    filmed = [record for record in records if (directory / names[record.seed]).is_file()]
    by_interest = sorted(filmed, key=lambda record: (record.outcome == "success", record.index))
    pictured = {record.seed for record in by_interest[:MAX_THUMBNAILS]}
    return {
        record.seed: Video(
            record,
            quote(names[record.seed]),
            thumbnail(directory / names[record.seed]) if record.seed in pictured else None,
        )
        for record in filmed
    }


def thumbnail(path: Path) -> str | None:
    """The last frame as a `data:` URI, None when the file holds none that can be read."""
    frame = _last_frame(path)
    if frame is None:
        return None
    frame.thumbnail(_SIZE)
    file = io.BytesIO()
    frame.save(file, format="JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _last_frame(path: Path) -> Image | None:
    import av  # 0.2 s and many libraries that `--help` need not load

    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            if stream.duration:
                container.seek(stream.duration, stream=stream)  # to the last key frame, not through the whole film
            last = deque(container.decode(stream), maxlen=1)
            return last[0].to_image() if last else None
    except (av.error.FFmpegError, IndexError, OSError):
        return None
