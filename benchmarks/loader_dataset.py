"""A LeRobot dataset that nobody recorded: PNG frames as large and as compressible as a simulator's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from training.data import DatasetWriter, Feature
from training.data.lerobot.writing.dataset_writer import DatasetFormat
from training.data.lerobot.writing.encoded_frames import EncodedFrames, encode_frames

__all__ = ["CAMERAS", "FPS", "write_dataset"]

CAMERAS = ("image", "wrist_image")
FPS = 20.0
_STATE, _ACTION = 8, 7


def write_dataset(
    out: Path,
    cameras: int,
    episodes: int,
    length: int,
    side: int = 224,
    *,
    version: DatasetFormat = "v3.0",
    scenes: int | None = None,
) -> Path:
    """Write `episodes` of `length` rows with the first `cameras` of `CAMERAS`; returns the folder.

    Args:
        scenes: episodes with frames of their own, whose frames the others repeat in turn, for a large dataset in
            little time; all when None.
    """
    draw, keys = np.random.default_rng(0), CAMERAS[:cameras]
    drawn: list[dict[str, EncodedFrames]] = []
    features = {
        **{key: Feature("image", (side, side, 3)) for key in keys},
        "state": Feature("float32", (_STATE,)),
        "actions": Feature("float32", (_ACTION,)),
    }
    with DatasetWriter(out, version=version, fps=FPS, robot_type="panda", features=features) as writer:
        for episode in range(episodes):
            if episode < (scenes or episodes):
                drawn.append({key: encode_frames(_scenes(draw, length, side)) for key in keys})
            columns = {
                "state": np.cumsum(draw.normal(0, 0.02, (length, _STATE)), axis=0).astype(np.float32),
                "actions": draw.uniform(-1, 1, (length, _ACTION)).astype(np.float32),
            }
            writer.add_episode(columns, drawn[episode % len(drawn)], "stack the red cube")
        writer.write_metadata()
        return writer.commit()


def _scenes(draw: np.random.Generator, length: int, side: int) -> UInt8[np.ndarray, "frames height width 3"]:
    """Coloured boxes that move over a shaded table, with a little of a sensor's noise."""
    coarse = draw.integers(60, 200, (7, 7, 3), np.uint8)
    table = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    frames = np.repeat(table[None], length, axis=0).astype(np.int16)
    size = side // 6
    for _ in range(4):
        colour = draw.integers(0, 256, 3)
        places = np.cumsum(draw.integers(-3, 4, (length, 2)), axis=0) + draw.integers(0, side - size, 2)
        for frame, (row, column) in zip(frames, np.clip(places, 0, side - size), strict=True):
            frame[row : row + size, column : column + size] = colour
    frames[:, ::2, ::2] += draw.integers(-2, 3, (length, len(frames[0, ::2]), len(frames[0, 0, ::2]), 3), np.int16)
    return np.clip(frames, 0, 255).astype(np.uint8)
