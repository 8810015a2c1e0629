"""Frames are decoded once, resized to the model's size, and an interrupted build goes on where it stopped."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data import (
    Dataset,
    DatasetWriter,
    Feature,
    FrameCacheUnusable,
    FrameCorrupt,
    Loader,
    fingerprint,
    open_frame_cache,
)
from training.data.frames import frame_cache_build
from training.data.frames.frame_cache import open_frame_caches
from training.pi05.transforms.images import resize_with_pad

FIXTURES = Path(__file__).parents[3] / "data" / "lerobot"
SIZE = {"height": 28, "width": 28}
EVERY_ROW = np.arange(39)


@pytest.fixture
def dataset():
    return Dataset(FIXTURES / "lerobot_v30_image")


@pytest.mark.parametrize("name", ["lerobot_v21_video", "lerobot_v30_image", "lerobot_v30_video"])
def test_a_cached_frame_is_the_decoded_frame_resized(tmp_path, name):
    dataset = Dataset(FIXTURES / name)
    cache = open_frame_cache(dataset, tmp_path, **SIZE)
    for key in dataset.cameras:
        gathered = cache.gather(key, EVERY_ROW)
        assert (gathered.dtype, gathered.shape) == (np.uint8, (39, 28, 28, 3))
        for row in (0, 12, 13, 38):
            np.testing.assert_array_equal(gathered[row], resize_with_pad(dataset.frame(key, row), 28, 28))


def test_a_finished_cache_is_opened_without_decoding(dataset, tmp_path, monkeypatch, capsys):
    built = open_frame_cache(dataset, tmp_path, **SIZE)
    assert "Decoding 2 x 39 frames into" in capsys.readouterr().err
    monkeypatch.setattr(Dataset, "frames", None)
    opened = open_frame_cache(dataset, tmp_path, **SIZE)
    np.testing.assert_array_equal(opened.gather("image", EVERY_ROW), built.gather("image", EVERY_ROW))
    assert capsys.readouterr().err == ""
    assert sorted(path.name for path in opened.directory.iterdir() if path.suffix != ".lock") == [
        "image.json",
        "image.npy",
        "wrist_image.json",
        "wrist_image.npy",
    ]


def test_each_dataset_and_size_has_its_own_cache(dataset, tmp_path):
    other = Dataset(FIXTURES / "lerobot_v30_video")
    opened = [open_frame_cache(dataset, tmp_path, **SIZE), open_frame_cache(dataset, tmp_path, height=14, width=14)]
    opened.append(open_frame_cache(other, tmp_path, **SIZE))
    assert len({cache.directory for cache in opened}) == 3


def test_an_interrupted_build_goes_on_with_the_next_episode(dataset, tmp_path, monkeypatch):
    decoded, frames = [], Dataset.frames

    def interrupted(self, key, episode, wanted=None):
        if episode == 2 and len(decoded) < 3:
            decoded.append((key, episode))
            raise KeyboardInterrupt
        decoded.append((key, episode))
        return frames(self, key, episode, wanted)

    monkeypatch.setattr(Dataset, "frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_frame_cache(dataset, tmp_path, **SIZE)
    assert not list(tmp_path.rglob("*.npy"))
    before = len(decoded)
    cache = open_frame_cache(dataset, tmp_path, **SIZE)
    assert ("image", 0) not in decoded[before:]
    assert ("image", 2) in decoded[before:]
    assert not list(tmp_path.rglob("*.partial"))
    monkeypatch.undo()
    for key in dataset.cameras:
        for row in EVERY_ROW:
            np.testing.assert_array_equal(
                cache.gather(key, EVERY_ROW[row : row + 1])[0], resize_with_pad(dataset.frame(key, row), 28, 28)
            )


def test_a_partial_file_of_another_shape_is_begun_anew(dataset, tmp_path):
    directory = open_frame_cache(dataset, tmp_path, **SIZE).directory
    (directory / "image.npy").rename(directory / "image.npy.partial")
    np.save(directory / "image.npy", np.zeros((3, 28, 28, 3), np.uint8))
    (directory / "image.npy").rename(directory / "image.npy.partial")
    (directory / "image.journal").write_text("3")
    cache = open_frame_cache(dataset, tmp_path, **SIZE)
    assert cache.images["image"].shape == (39, 28, 28, 3)
    assert cache.images["image"][38].any()


def test_rows_without_a_frame_of_their_own_show_the_last_one(tmp_path):
    features = {"image": Feature("image", (4, 4, 3)), "frame_rendered": Feature("bool", (1,))}
    levels = np.array([10, 10, 10, 40, 40], dtype=np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (5, 4, 4, 3))
    rendered = np.array([True, False, False, True, False])[:, None]
    with DatasetWriter(tmp_path / "data", fps=20, robot_type="", features=features) as writer:
        writer.add_episode({"frame_rendered": rendered}, {"image": frames}, "wait")
        writer.add_episode({"frame_rendered": rendered}, {"image": frames + np.uint8(1)}, "wait")
        writer.write_metadata()
        dataset = Dataset(writer.commit())
    cache = open_frame_cache(dataset, tmp_path, height=4, width=4)
    assert cache.images["image"].shape == (4, 4, 4, 3)
    shown = cache.gather("image", np.arange(10))[:, 0, 0, 0]
    assert shown.tolist() == [10, 10, 10, 40, 40, 11, 11, 11, 41, 41]


@pytest.mark.parametrize(
    "damage", [lambda png: b"\0" + png[1:], lambda png: png[:60], lambda png: b"", lambda png: None]
)
def test_a_corrupt_image_is_named_with_file_and_row(tmp_path, damage):
    root = Path(shutil.copytree(FIXTURES / "lerobot_v21_image", tmp_path / "data"))
    path = root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    cells = table["image"].to_pylist()
    cells[5]["bytes"] = damage(cells[5]["bytes"])
    pq.write_table(table.set_column(0, "image", pa.array(cells, table.schema.field("image").type)), path)
    dataset = Dataset(root)
    named = r"Frame 5 of episode 1 \(row 18, camera 'image'\) in .*episode_000001\.parq.*, or pass --skip-corrupt\.$"
    with pytest.raises(FrameCorrupt, match=named) as error:
        open_frame_cache(dataset, tmp_path / "cache", **SIZE)
    assert "object at" not in error.value.message
    cache = open_frame_cache(dataset, tmp_path / "cache", **SIZE, skip_corrupt=True)
    assert list(cache.corrupt["image"]) == [18]
    assert np.flatnonzero(~cache.usable).tolist() == [18]
    shown = cache.gather("image", EVERY_ROW)
    assert not shown[18].any()
    np.testing.assert_array_equal(shown[19], resize_with_pad(dataset.frame("image", 19), 28, 28))


def test_skipped_frames_are_counted_and_are_no_samples(tmp_path, capsys):
    root = Path(shutil.copytree(FIXTURES / "lerobot_v21_video", tmp_path / "data"))
    video = root / "videos/chunk-000/image/episode_000001.mp4"
    video.write_bytes(video.read_bytes()[:500])
    dataset = Dataset(root)
    capsys.readouterr()
    cache = open_frame_cache(dataset, tmp_path / "cache", **SIZE, skip_corrupt=True)
    assert re.search(
        r"Skipped 9 of 78 frames of .*data that cannot be decoded\. The first: Frame 0 of episode 1 \(row 13, camera "
        r"'image'\) in .*episode_000001\.mp4 cannot be decoded",
        capsys.readouterr().err,
    )
    assert cache.corrupt_frames == 9
    loader = Loader(dataset, cache, action_horizon=2, batch_size=4, seed=0)
    assert loader.anchors.tolist() == [*range(13), *range(22, 39)]
    with pytest.raises(FrameCorrupt, match="Frame 0 of episode 1") as error:  # a run that did not ask to skip them
        open_frame_cache(dataset, tmp_path / "cache", **SIZE)
    assert error.value.message.endswith(
        f" (Noted in {cache.directory}: remove that folder to decode every frame again.)"
    )


def test_a_frame_that_can_be_decoded_again_is_left_out_no_longer(dataset, tmp_path, monkeypatch, capsys):
    frames = Dataset.frames

    def unreadable(self, key, episode, wanted=None):
        for number in wanted:
            if (key, episode, number) == ("image", 1, 5):
                raise FrameCorrupt("the disk did not answer")
            yield from frames(self, key, episode, [number])

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "frames", unreadable)
        for _ in range(2):  # nothing is decoded anew for as long as it stays so
            cache = open_frame_cache(dataset, tmp_path, **SIZE, skip_corrupt=True)
            assert cache.corrupt == {"image": {18: "the disk did not answer"}, "wrist_image": {}}
        assert capsys.readouterr().err.count("decoding anew") == 0
    cache = open_frame_cache(dataset, tmp_path, **SIZE)
    assert cache.corrupt_frames == 0
    np.testing.assert_array_equal(
        cache.gather("image", np.array([18]))[0], resize_with_pad(dataset.frame("image", 18), 28, 28)
    )
    assert (
        f"Frames in {cache.directory / 'image.npy'} could not be decoded before and now can be: decoding anew\n"
        f"Decoding 1 x 39 frames into {cache.directory}: 0.00 GB"
    ) in capsys.readouterr().err


def test_a_repaired_dataset_has_another_cache_than_the_damaged_one(tmp_path):
    """Also where the facts of its conversion stayed the same."""
    root = Path(shutil.copytree(FIXTURES / "lerobot_v21_video", tmp_path / "data"))
    video = root / "videos/chunk-000/image/episode_000001.mp4"
    whole = video.read_bytes()
    video.write_bytes(whole[:500])
    damaged = open_frame_cache(Dataset(root), tmp_path / "cache", **SIZE, skip_corrupt=True)
    video.write_bytes(whole)
    repaired = open_frame_cache(Dataset(root), tmp_path / "cache", **SIZE)
    assert damaged.directory != repaired.directory
    assert repaired.corrupt_frames == 0


def test_a_damaged_cache_is_named(dataset, tmp_path):
    path = open_frame_cache(dataset, tmp_path, **SIZE).directory / "image.npy"
    np.save(path, np.zeros((2, 28, 28, 3), np.uint8))
    with pytest.raises(
        FrameCacheUnusable, match=r"image\.npy holds uint8 \(2, 28, 28, 3\) but the dataset needs uint8"
    ):
        open_frame_cache(dataset, tmp_path, **SIZE)
    path.write_bytes(b"nothing")
    with pytest.raises(FrameCacheUnusable, match=r"image\.npy is damaged: .* Remove it to build it again"):
        open_frame_cache(dataset, tmp_path, **SIZE)


def test_a_changed_cache_is_found_by_its_checksums(dataset, tmp_path):
    path = open_frame_cache(dataset, tmp_path, **SIZE).directory / "image.npy"
    images = np.load(path, mmap_mode="r+")
    images[20, 0, 0, 0] += 1
    images.flush()
    with pytest.raises(
        FrameCacheUnusable,
        match=r"image\.npy was changed after it was built: episode 1 has another checksum\. Rem",
    ):
        open_frame_cache(dataset, tmp_path, **SIZE)
    images[20, 0, 0, 0] -= 1  # copied, or touched, but whole
    images.flush()
    open_frame_cache(dataset, tmp_path, **SIZE)


def test_the_cache_of_another_dataset_is_stale(dataset, tmp_path):
    other = open_frame_cache(Dataset(FIXTURES / "lerobot_v30_video"), tmp_path, **SIZE)
    mine = open_frame_cache(dataset, tmp_path, **SIZE)
    shutil.copy(other.directory / "image.json", mine.directory / "image.json")
    with pytest.raises(FrameCacheUnusable, match=r"image\.npy is stale: it was decoded from a dataset with the finger"):
        open_frame_cache(dataset, tmp_path, **SIZE)


def test_frames_without_a_manifest_are_built_anew(dataset, tmp_path):
    first = open_frame_cache(dataset, tmp_path, **SIZE)
    wanted = np.array(first.images["image"])
    (first.directory / "image.json").unlink()
    np.save(first.directory / "image.npy", np.zeros_like(wanted))
    assert np.array_equal(open_frame_cache(dataset, tmp_path, **SIZE).images["image"], wanted)


def test_an_unfinished_build_believes_only_frames_that_are_really_there(dataset, tmp_path):
    """After a power cut the journal may be ahead of the frames, and its last line may be torn."""
    whole = open_frame_cache(dataset, tmp_path / "whole", **SIZE)
    lines = [json.dumps(episode) for episode in json.loads((whole.directory / "image.json").read_text())["episodes"]]
    images = np.array(whole.images["image"])
    images[20:] = 7  # episode 1 is damaged, episode 2 never came
    directory = tmp_path / "cut" / whole.directory.name
    directory.mkdir(parents=True)
    np.save(directory / "image.npy", images)
    (directory / "image.npy").rename(directory / "image.npy.partial")
    (directory / "image.journal").write_text("\n".join([fingerprint(dataset), *lines[:2], lines[2][:9]]))
    cut = open_frame_cache(dataset, tmp_path / "cut", **SIZE)
    np.testing.assert_array_equal(cut.images["image"], whole.images["image"])
    assert not list(directory.glob("*.journal*"))


def test_a_full_disk_is_noticed_before_decoding(dataset, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(frame_cache_build.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(
        FrameCacheUnusable, match=r"The decoded frames need 0\.0 GB but .*Set CHUNKWIRE_CACHE to a folder"
    ):
        open_frame_cache(dataset, tmp_path, **SIZE)


def test_the_room_for_all_datasets_of_a_mixture_is_asked_for_at_once(dataset, tmp_path, monkeypatch):
    other = Dataset(FIXTURES / "lerobot_v30_video")
    usage, one = shutil.disk_usage(tmp_path), 2 * 39 * 28 * 28 * 3
    monkeypatch.setattr(frame_cache_build.shutil, "disk_usage", lambda path: usage._replace(free=one))
    with pytest.raises(FrameCacheUnusable, match=r"^The decoded frames need 0\.0 GB but "):
        open_frame_caches([dataset, other], tmp_path, **SIZE)
    assert not list(tmp_path.rglob("*.npy"))
    open_frame_caches([dataset, dataset], tmp_path, **SIZE)  # the same one twice is decoded once


def test_a_disk_that_fills_while_frames_are_decoded_ends_with_words(dataset, tmp_path, no_room_for_files_beyond):
    """A map of a file that has no room for its pages kills the process; so the room is taken before."""
    with (
        no_room_for_files_beyond(10_000),
        pytest.raises(
            FrameCacheUnusable, match=r"The decoded frames need 0\.0 GB but .* Set CHUNKWIRE_CACHE to a folder"
        ),
    ):
        open_frame_cache(dataset, tmp_path, **SIZE)


def test_every_page_of_an_unfinished_array_has_its_room(dataset, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Dataset, "frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_frame_cache(dataset, tmp_path, **SIZE)
    (partial,) = tmp_path.rglob("*.partial")
    assert partial.stat().st_blocks * 512 >= partial.stat().st_size > 39 * 28 * 28 * 3
