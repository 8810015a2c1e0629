"""The datasets in tests/data/lerobot, written by the real package, read back as that package reads them."""

import contextlib
import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from training.data import Dataset, DatasetInvalid, DatasetWriter, Feature, FrameCorrupt, fingerprint

FIXTURES = Path(__file__).parents[3] / "data" / "lerobot"
NAMES = ("lerobot_v21_image", "lerobot_v21_video", "lerobot_v30_image", "lerobot_v30_video")
VIDEO_TOLERANCE = 2


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def copied(name, tmp_path):
    return Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def expected(name):
    with np.load(FIXTURES / f"{name}.expected.npz") as stored:
        return {key: stored[key] for key in stored}


def expected_rows(name):
    return sorted({int(key.split("/")[0]) for key in expected(name)})


def test_frames_equal_what_lerobot_read_bit_for_bit_as_images_and_within_the_codec_as_video(name):
    dataset, known = Dataset(FIXTURES / name), expected(name)
    tolerance = VIDEO_TOLERANCE if name.endswith("video") else 0
    for row in expected_rows(name):
        for key in dataset.cameras:
            difference = dataset.frame(key, row).transpose(2, 0, 1).astype(int) - known[f"{row}/{key}"]
            assert np.abs(difference).max() <= tolerance


def test_columns_equal_what_lerobot_read(name):
    dataset, known = Dataset(FIXTURES / name), expected(name)
    state, actions, timestamp = (dataset.column(key) for key in ("state", "actions", "timestamp"))
    assert (state.dtype, state.shape, actions.shape) == (np.float32, (39, 8), (39, 7))
    places = np.concatenate([dataset.column(key) for key in ("episode_index", "frame_index", "task_index")], axis=1)
    for row in expected_rows(name):
        np.testing.assert_array_equal(state[row], known[f"{row}/state"])
        np.testing.assert_array_equal(actions[row], known[f"{row}/actions"])
        np.testing.assert_array_equal(timestamp[row, 0], known[f"{row}/timestamp"])
        np.testing.assert_array_equal(places[row], known[f"{row}/meta"])


def test_metadata_says_where_each_episode_lies_and_what_it_does(name):
    dataset = Dataset(FIXTURES / name)
    assert [(part.start, part.stop) for part in dataset.episodes] == [(0, 13), (13, 22), (22, 39)]
    assert (dataset.rows, dataset.metadata.fps, dataset.metadata.robot_type) == (39, 20, "panda")
    assert dataset.cameras == ("image", "wrist_image")
    assert dataset.features["image"].image_size == (96, 128)
    first, second, third = dataset.prompts(np.array([0, 13, 38]))
    assert (first, second) == (third, "Push and move a cube to a goal region in front of it.")
    assert dataset.facts is None
    assert dataset.rendered.all()


def test_an_episode_read_in_order_equals_its_frames_read_one_by_one(name):
    dataset = Dataset(FIXTURES / name)
    part = dataset.episodes[1]
    in_order = list(dataset.frames("wrist_image", 1))
    assert len(in_order) == part.length
    for row, frame in zip(range(part.start, part.stop), in_order, strict=True):
        np.testing.assert_array_equal(frame, dataset.frame("wrist_image", row))
    some = list(dataset.frames("wrist_image", 1, [2, 3, 7]))
    np.testing.assert_array_equal(np.stack(some), np.stack(in_order)[[2, 3, 7]])


def test_reading_columns_opens_no_image(name, tmp_path):
    """A dataset whose videos are gone still gives its numbers."""
    root = copied(name, tmp_path)
    shutil.rmtree(root / "videos", ignore_errors=True)
    assert Dataset(root).column("state").shape == (39, 8)


def test_the_fingerprint_follows_the_content_and_not_the_container():
    old, new = (fingerprint(Dataset(FIXTURES / name)) for name in ("lerobot_v21_image", "lerobot_v30_image"))
    assert old == new
    assert old != fingerprint(Dataset(FIXTURES / "lerobot_v30_video"))


def test_a_folder_that_is_no_dataset_is_named(tmp_path):
    with pytest.raises(DatasetInvalid, match=r"is not a LeRobot dataset: it has no meta/info\.json\. Pass the folder"):
        Dataset(tmp_path)


def change_info(root, **changes):
    path = root / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_unsupported_version_is_named_with_the_supported_ones(tmp_path):
    root = copied("lerobot_v21_image", tmp_path)
    change_info(root, codebase_version="v2.0")
    with pytest.raises(DatasetInvalid, match=r"has codebase_version 'v2\.0', but Chunkwire reads v2\.1 and v3\.0\."):
        Dataset(root)


def test_a_dataset_without_frames_is_refused(tmp_path):
    root = copied("lerobot_v30_image", tmp_path)
    change_info(root, total_frames=0)
    with pytest.raises(DatasetInvalid, match="holds no frames: record demonstrations and convert them first"):
        Dataset(root)


def test_damaged_metadata_is_named(tmp_path):
    root = copied("lerobot_v30_image", tmp_path)
    (root / "meta" / "tasks.parquet").write_bytes(b"nothing")
    with pytest.raises(DatasetInvalid, match=r"The metadata of .* cannot be read"):
        Dataset(root)
    (root / "meta" / "info.json").write_text("{")
    with pytest.raises(DatasetInvalid, match=r"info\.json is not JSON"):
        Dataset(root)
    (root / "meta" / "info.json").write_text("{}")
    with pytest.raises(DatasetInvalid, match=r"info\.json has no 'codebase_version'"):
        Dataset(root)


def test_a_missing_key_shows_what_there_is(name):
    dataset = Dataset(FIXTURES / name)
    with pytest.raises(
        DatasetInvalid, match=r"has no 'action'\. It has: image, wrist_image, state, actions, timestamp"
    ):
        dataset.column("action")
    with pytest.raises(DatasetInvalid, match=r"has no camera 'state'\. It has: image, wrist_image\."):
        dataset.frames("state", 0)
    with pytest.raises(DatasetInvalid, match="'image' is a camera: its frames are decoded one by one"):
        dataset.column("image")


def test_a_data_file_that_was_cut_off_is_named_with_both_lengths(tmp_path):
    root = copied("lerobot_v21_image", tmp_path)
    shutil.copy(root / "data/chunk-000/episode_000001.parquet", root / "data/chunk-000/episode_000000.parquet")
    with pytest.raises(
        DatasetInvalid, match=r"episode_000000\.parquet has 9 rows but its episodes in meta/ add up to 13"
    ):
        Dataset(root).column("state")


def test_a_missing_data_file_is_named(tmp_path):
    root = copied("lerobot_v21_image", tmp_path)
    (root / "data/chunk-000/episode_000002.parquet").unlink()
    with pytest.raises(DatasetInvalid, match=r"The column 'state' of .*episode_000002\.parquet cannot be read"):
        Dataset(root).column("state")
    with pytest.raises(FrameCorrupt, match=r"Frame 0 of episode 2 \(row 22, camera 'image'\) in .*episode_000002"):
        Dataset(root).frame("image", 22)


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_a_damaged_video_is_named_with_file_episode_frame_and_row(tmp_path, content):
    root = copied("lerobot_v30_video", tmp_path)
    (root / "videos/image/chunk-000/file-000.mp4").write_bytes(content)
    with pytest.raises(
        FrameCorrupt, match=r"Frame 2 of episode 1 \(row 15, camera 'image'\) in .*file-000\.mp4 cannot"
    ):
        Dataset(root).frame("image", 15)


def test_a_video_that_ends_early_is_named(tmp_path):
    root = copied("lerobot_v21_video", tmp_path)
    videos = root / "videos/chunk-000/image"
    shutil.copy(videos / "episode_000001.mp4", videos / "episode_000000.mp4")
    with pytest.raises(FrameCorrupt, match=r"Frame 9 of episode 0 .*: the video ends before it\. Convert or download"):
        list(Dataset(root).frames("image", 0))


def damaged_within(path):
    """Overwrite eight bytes of an H.264 file where the decoder goes on with a picture that it made up; its number."""
    whole = path.read_bytes()
    for place in range(len(whole) // 10, len(whole), len(whole) // 50):
        path.write_bytes(whole[:place] + b"\xff" * 8 + whole[place + 8 :])
        with contextlib.suppress(av.FFmpegError), av.open(str(path)) as container:
            for number, picture in enumerate(container.decode(video=0)):
                if picture.is_corrupt:
                    return number
    raise AssertionError("no damage was concealed")


def test_a_picture_that_the_decoder_made_up_is_no_frame(tmp_path):
    features = {"image": Feature("video", (96, 128, 3)), "state": Feature("float32", (1,))}
    noise = np.random.default_rng(0).integers(0, 256, (20, 96, 128, 3), dtype=np.uint8)
    with DatasetWriter(tmp_path / "a", fps=20, robot_type="", features=features) as writer:
        writer.add_episode({"state": np.zeros((20, 1), np.float32)}, {"image": noise}, "task")
        writer.write_metadata()
        dataset = Dataset(writer.commit())
    number = damaged_within(dataset.root / "videos/image/chunk-000/file-000.mp4")
    with pytest.raises(FrameCorrupt) as error:
        dataset.frame("image", number)
    assert error.value.message == (
        f"Frame {number} of episode 0 (row {number}, camera 'image') in "
        f"{dataset.root}/videos/image/chunk-000/file-000.mp4 cannot be decoded: the decoder had to make up a part of "
        "it. Convert or download the dataset again, or pass --skip-corrupt."
    )
