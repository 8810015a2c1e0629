"""Camera frames of a ManiSkill recording, in each of the forms that its observation modes write.

obs/sensor_data/<camera>/rgb    (steps + 1, height, width, 3) uint8
obs/sensor_data/<camera>/Color  (steps + 1, height, width, 4) float 0 to 1, or uint8: what the renderer itself gives

Depth, segmentation and positions beside them are left alone.
"""

from __future__ import annotations

import h5py
import numpy as np
from jaxtyping import UInt8

from training.data.errors import DemonstrationsInvalid

__all__ = ["FRAME_NAMES", "check_frames", "read_frames"]

FRAME_NAMES = ("rgb", "Color")
"""Where a camera's colours may lie, the first one first."""
_FRAMES_IN_MEMORY = 16
"""Floats of so many frames at once: an episode of them is five times its uint8."""
_SLACK = 1e-3


def check_frames(frames: h5py.Dataset, name: str) -> None:
    """Whether these are frames of a known form. Raises `DemonstrationsInvalid`."""
    known = frames.dtype == np.uint8 or np.issubdtype(frames.dtype, np.floating)
    if not known or frames.ndim != 4 or frames.shape[-1] not in (3, 4):
        raise DemonstrationsInvalid(
            f"{name} has the dtype {frames.dtype} and shape {frames.shape}; expected uint8, or floats from 0 to 1, "
            "of (steps + 1, height, width, 3 or 4)."
        )


def read_frames(frames: h5py.Dataset, steps: int, name: str) -> UInt8[np.ndarray, "steps height width 3"]:
    """The first `steps` frames as uint8 RGB; never more than a few of them are in memory as floats.

    Raises:
        DemonstrationsInvalid: floats outside of 0 to 1 (names the frame).
        OSError: the file is damaged.
    """
    if frames.dtype == np.uint8:
        return np.ascontiguousarray(frames[:steps, ..., :3])
    colours = np.empty((steps, *frames.shape[1:3], 3), dtype=np.uint8)
    for start in range(0, steps, _FRAMES_IN_MEMORY):
        block = frames[start : min(start + _FRAMES_IN_MEMORY, steps), ..., :3]
        _check_range(block, start, name)
        colours[start : start + len(block)] = np.rint(np.clip(block, 0.0, 1.0) * 255.0).astype(np.uint8)
    return colours


def _check_range(block: np.ndarray, start: int, name: str) -> None:
    inside = ((block >= -_SLACK) & (block <= 1.0 + _SLACK)).all(axis=(1, 2, 3))  # NaN is not inside
    if not inside.all():
        frame = int(np.argmin(inside))
        raise DemonstrationsInvalid(
            f"{name} holds floats from {block[frame].min():g} to {block[frame].max():g} in frame {start + frame}; "
            "expected 0 to 1. Record it again with obs_mode rgb."
        )
