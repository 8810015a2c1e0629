"""Checks of the cameras, by a few frames of a few episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from training.check.finding import Finding
from training.check.inspected import Inspected
from training.data import FrameCorrupt

__all__ = ["cameras"]

_CODEC_ERROR = 8
"""Largest difference, of 255, that H.264 makes of two equal frames."""


def cameras(inspected: Inspected) -> Iterator[Finding]:
    """Cameras that show nothing, or the same all along; all of them black is an error, one a warning."""
    keys = inspected.dataset.cameras
    if not keys:
        yield Finding(
            "no-camera",
            "error",
            f"The dataset has no camera. It has: {', '.join(inspected.dataset.features)}.",
            "Record with images: train convert takes recordings of the observation modes 'rgb' and 'sensor_data'.",
        )
    black = []
    for key in keys:
        try:
            episodes = inspected.frames(key)
        except FrameCorrupt as error:
            yield Finding("corrupt-frame", "error", error.message, "Whatever made the file did not finish it.")
            continue
        if not any(frames.any() for frames in episodes):
            black.append(key)
        elif _frozen(episodes, inspected.dataset.features[key].dtype):
            yield _frozen_finding(key, episodes)
    if black:
        yield _black_finding(black, keys)


def _frozen(episodes: Sequence[np.ndarray], kind: str) -> bool:
    """Whether no episode of more than one frame shows any change."""
    moving = [frames.astype(np.int16) for frames in episodes if len(frames) > 1]
    allowed = _CODEC_ERROR if kind == "video" else 0
    return bool(moving) and all(np.abs(frames - frames[0]).max() <= allowed for frames in moving)


def _frozen_finding(key: str, episodes: Sequence[np.ndarray]) -> Finding:
    return Finding(
        "frozen-camera",
        "error",
        f"Camera {key!r} shows the same picture all along: first, middle and last frame are equal in all "
        f"{len(episodes)} episodes looked at.",
        "It was not rendered anew at each step: record again.",
    )


def _black_finding(black: Sequence[str], keys: Sequence[str]) -> Finding:
    named = ", ".join(map(repr, black))
    if len(black) == len(keys):
        return Finding(
            "black-camera",
            "error",
            f"Every camera is black: {named}.",
            "The policy would be blind: record again with a working renderer.",
        )
    return Finding(
        "black-camera",
        "warning",
        f"Black in every frame looked at: {named}. The others are not.",
        "The policy learns to act without it and pays for its tokens. Record with a robot that has that camera, such "
        "as panda_wristcam.",
    )
