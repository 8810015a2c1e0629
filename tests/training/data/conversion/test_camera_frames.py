"""Frames of any observation mode become the same uint8 RGB; what is not colour is left alone."""

import numpy as np
import pytest

from training.data import Dataset, DemonstrationsInvalid, convert

COLOURS = np.random.default_rng(1).integers(0, 256, (20, 4, 6, 3), dtype=np.uint8)


def with_alpha(frames, opaque):
    return np.concatenate([frames, np.full_like(frames[..., :1], opaque)], axis=-1)


FORMS = {
    "uint8 rgb": lambda: {"rgb": COLOURS},
    "uint8 Color with alpha": lambda: {"Color": with_alpha(COLOURS, 255)},
    "float32 Color with alpha": lambda: {"Color": with_alpha((COLOURS / 255).astype(np.float32), 1.0)},
    "float16 Color": lambda: {"Color": (COLOURS / 255).astype(np.float16)},
    "float64 rgb": lambda: {"rgb": COLOURS / 255},
    "rgb beside Color, depth and segmentation": lambda: {
        "rgb": COLOURS,
        "Color": np.zeros((20, 4, 6, 4), np.float32),
        "depth": np.ones((20, 4, 6, 1), np.int16),
        "segmentation": np.ones((20, 4, 6, 1), np.int16),
        "PositionSegmentation": np.ones((20, 4, 6, 4), np.int16),
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_frames_gives_the_same_pixels(record, tmp_path, form):
    convert(record((19,), lambda rows: FORMS[form]()), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert dataset.cameras == ("image",)
    np.testing.assert_array_equal(np.stack(list(dataset.frames("image", 0))), COLOURS[:19])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda frames: frames * 255,
            r"/Color holds floats from 0 to 255 in frame 0; expected 0 to 1\. Rec",
        ),
        (
            lambda frames: np.where(np.arange(20)[:, None, None, None] == 17, np.nan, frames),
            r"pull\.h5:/traj_0/obs/sensor_data/base_camera/Color holds floats from nan to nan in frame 17;",
        ),
        (
            lambda frames: frames[..., :2],
            r"Color has the dtype float64 and shape \(20, 4, 6, 2\); expected uint8, o",
        ),
    ],
)
def test_floats_that_are_no_colours_are_refused(record, tmp_path, spoil, message):
    frames = COLOURS / 255
    frames[0, 0, 0] = (0.0, 1.0, 1.0)
    with pytest.raises(DemonstrationsInvalid, match=message):
        convert(record((19,), lambda rows: {"Color": spoil(frames)}), tmp_path / "out")
