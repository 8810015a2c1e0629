"""What we write has the layout of what the real package wrote: the fixtures in tests/data/lerobot."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from training.data import Dataset, DatasetInvalid, DatasetWriter, Feature, OutputExists
from training.data.lerobot.writing import parquet_files, video_files
from training.data.lerobot.writing.statistics import ColourHistogram

FIXTURES = Path(__file__).parents[4] / "data" / "lerobot"
VARIETIES = [(version, images) for version in ("v2.1", "v3.0") for images in ("image", "video")]
VIDEO_MEAN_ERROR = 3.0
"""Of 255; FFmpeg's RGB to YUV and back alone costs 1 to 2, whatever the codec (LeRobot's AV1 measures the same)."""
WRITTEN = ("image", "wrist_image", "state", "actions")


def fixture(version, images):
    return Dataset(FIXTURES / f"lerobot_{version.replace('.', '')}_{images}")


def contents(source):
    """Columns, frames and task of each episode."""
    for index, part in enumerate(source.episodes):
        columns = {key: source.column(key)[part.start : part.stop] for key in ("state", "actions")}
        yield columns, {key: np.stack(list(source.frames(key, index))) for key in source.cameras}, part.tasks[0]


def rewrite(source, out, version, **options):
    features = {key: source.features[key] for key in WRITTEN}
    with DatasetWriter(out, version=version, fps=20, robot_type="panda", features=features, **options) as writer:
        for columns, frames, task in contents(source):
            writer.add_episode(columns, frames, task)
        writer.write_metadata()
        return Dataset(writer.commit())


@pytest.mark.parametrize(("version", "images"), VARIETIES)
def test_what_is_written_is_read_back(tmp_path, version, images):
    source = fixture(version, images)
    written = rewrite(source, tmp_path / "out", version)
    assert written.metadata.tasks == source.metadata.tasks
    for key in set(source.features) - set(source.cameras):
        np.testing.assert_array_equal(written.column(key), source.column(key))
    for (_, before, _), (_, after, _) in zip(contents(source), contents(written), strict=True):
        for key in source.cameras:
            difference = np.abs(after[key].astype(int) - before[key])
            assert difference.mean() < VIDEO_MEAN_ERROR if images == "video" else difference.max() == 0


@pytest.mark.parametrize(("version", "images"), VARIETIES)
def test_the_files_and_the_info_are_those_of_the_real_package(tmp_path, version, images):
    source = fixture(version, images)
    written = rewrite(source, tmp_path / "out", version)
    files = [sorted(str(path.relative_to(root)) for path in root.rglob("*.*")) for root in (source.root, written.root)]
    assert files[0] == files[1]
    theirs, ours = (json.loads((root / "meta" / "info.json").read_text()) for root in (source.root, written.root))
    assert list(ours) == list(theirs)
    for key in source.cameras:  # the codec is ours; every other word is theirs
        if images == "video":
            assert ours["features"][key]["info"].pop("video.codec") == "h264"
            assert theirs["features"][key]["info"].pop("video.codec") == "av1"
    assert ours == theirs


@pytest.mark.parametrize(("version", "images"), VARIETIES)
def test_every_parquet_schema_is_that_of_the_real_package(tmp_path, version, images):
    source = fixture(version, images)
    written = rewrite(source, tmp_path / "out", version)
    for path in source.root.rglob("*.parquet"):
        theirs, ours = pq.read_schema(path), pq.read_schema(written.root / path.relative_to(source.root))
        assert ours.equals(theirs)
        for entry in (b"huggingface", b"pandas"):
            known = json.loads((theirs.metadata or {}).get(entry, b"{}"))
            known.pop("fingerprint", None)  # a random name that the `datasets` package gives each table
            known.pop("creator", None)
            mine = json.loads((ours.metadata or {}).get(entry, b"{}"))
            mine.pop("creator", None)
            assert mine == known


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_statistics_have_the_form_of_the_real_ones_and_equal_them_where_those_are_exact(tmp_path, version):
    source = fixture(version, "image")
    written = rewrite(source, tmp_path / "out", version)
    theirs, ours = (episode_statistics(root, version) for root in (source.root, written.root))
    assert ours.keys() == theirs.keys()
    for name, known in theirs.items():
        assert np.shape(ours[name]) == np.shape(known)
        key, statistic = name.rsplit("/", 1)
        if statistic in ("min", "max", "mean", "count") or (statistic == "std" and key not in source.cameras):
            np.testing.assert_allclose(ours[name], known, rtol=1e-5, atol=1e-6)


def episode_statistics(root, version):
    """Statistics of episode 1, as `feature/statistic`."""
    if version == "v3.0":
        row = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[1]
        return {key.removeprefix("stats/"): value for key, value in row.items() if key.startswith("stats/")}
    lines = (root / "meta/episodes_stats.jsonl").read_text().splitlines()
    statistics = json.loads(lines[1])["stats"]
    return {f"{key}/{name}": value for key, entry in statistics.items() for name, value in entry.items()}


def test_whole_dataset_statistics_are_over_all_rows(tmp_path):
    written = rewrite(fixture("v3.0", "image"), tmp_path / "out", "v3.0")
    statistics = json.loads((written.root / "meta/stats.json").read_text())
    assert set(statistics) == set(written.features)
    state = written.column("state").astype(np.float64)
    np.testing.assert_allclose(statistics["state"]["q99"], np.quantile(state, 0.99, axis=0))
    np.testing.assert_allclose(statistics["state"]["std"], state.std(axis=0))
    assert statistics["image"]["count"] == [39]


def test_colour_statistics_equal_those_of_all_pixels():
    frames = np.random.default_rng(0).integers(0, 200, (4, 6, 8, 3), dtype=np.uint8)
    histogram = ColourHistogram()
    histogram.add(frames[:1])
    histogram.add(frames[1:])
    pixels = frames.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(histogram.mean, pixels.mean(axis=0))
    np.testing.assert_allclose(histogram.std, pixels.std(axis=0))
    statistics = histogram.statistics()
    np.testing.assert_allclose(statistics["min"].ravel(), pixels.min(axis=0) / 255)
    np.testing.assert_allclose(statistics["max"].ravel(), pixels.max(axis=0) / 255)
    lower = np.quantile(pixels, 0.9, axis=0, method="inverted_cdf") / 255
    np.testing.assert_allclose(statistics["q90"].ravel(), lower)
    assert not histogram.all_zero
    black = ColourHistogram()
    black.add(np.zeros_like(frames))
    assert black.all_zero


def test_files_of_v30_roll_over_when_they_are_large_and_are_read_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "DATA_FILE_MB", 0)
    monkeypatch.setattr(video_files, "VIDEO_FILE_MB", 0)
    monkeypatch.setattr(parquet_files, "FILES_IN_CHUNK", 2)
    source = fixture("v3.0", "video")
    written = rewrite(source, tmp_path / "out", "v3.0")
    assert (written.root / "data/chunk-001/file-000.parquet").is_file()
    assert (written.root / "videos/image/chunk-001/file-000.mp4").is_file()
    np.testing.assert_array_equal(written.column("state"), source.column("state"))
    assert np.abs(written.frame("image", 38).astype(int) - source.frame("image", 38)).mean() < VIDEO_MEAN_ERROR


def test_a_bool_column_is_kept(tmp_path):
    features = {"state": Feature("float32", (2,)), "frame_rendered": Feature("bool", (1,))}
    flags = np.array([[True], [False], [True]])
    with DatasetWriter(tmp_path / "out", fps=20, robot_type="", features=features) as writer:
        writer.add_episode({"state": np.zeros((3, 2), np.float32), "frame_rendered": flags}, {}, "wait")
        writer.write_metadata()
        dataset = Dataset(writer.commit())
    np.testing.assert_array_equal(dataset.column("frame_rendered"), flags)
    np.testing.assert_array_equal(dataset.rendered, [True, False, True])


FEATURES = {"state": Feature("float32", (2,))}
EPISODE = {"state": np.zeros((3, 2), np.float32)}


def open_writer(out, **options):
    return DatasetWriter(out, fps=20, robot_type="", features=FEATURES, **options)


def test_an_interrupted_dataset_leaves_nothing_behind(tmp_path):
    def interrupt():
        with open_writer(tmp_path / "out") as writer:
            writer.add_episode(EPISODE, {}, "wait")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_dataset_is_replaced_only_when_told_and_only_by_a_complete_one(tmp_path):
    out = tmp_path / "out"
    with open_writer(out) as writer:
        writer.add_episode(EPISODE, {}, "old")
        writer.write_metadata()
        writer.commit()
    with pytest.raises(OutputExists, match=r"out exists already\. Pass --overwrite to replace it, or choose another"):
        open_writer(out)
    with open_writer(out, overwrite=True) as writer:
        writer.add_episode(EPISODE, {}, "new")
        assert Dataset(out).metadata.tasks == {0: "old"}
        writer.write_metadata()
        writer.commit()
    assert Dataset(out).metadata.tasks == {0: "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwrite_never_removes_something_that_is_no_dataset(tmp_path):
    (tmp_path / "home").mkdir()
    with pytest.raises(OutputExists, match="exists and is not a dataset, so --overwrite does not remove it"):
        open_writer(tmp_path / "home", overwrite=True)


def test_episodes_that_do_not_fit_are_refused(tmp_path):
    with open_writer(tmp_path / "out") as writer:
        with pytest.raises(DatasetInvalid, match=r"Nothing was written to .*: a dataset needs at least one episode"):
            writer.write_metadata()
        with pytest.raises(DatasetInvalid, match=r"Episode 0 has the keys \['speed'\], but the dataset \['state'\]"):
            writer.add_episode({"speed": EPISODE["state"]}, {}, "wait")
        with pytest.raises(DatasetInvalid, match=r"Episode 0 has 'state' of shape \(1,\), but the dataset \(2,\)"):
            writer.add_episode({"state": np.zeros((3, 1), np.float32)}, {}, "wait")
        with pytest.raises(DatasetInvalid, match=r"Episode 0 has columns of different or no length: \{'state': 0\}"):
            writer.add_episode({"state": np.zeros((0, 2), np.float32)}, {}, "wait")


def test_unknown_versions_and_odd_video_sizes_are_refused(tmp_path):
    with pytest.raises(DatasetInvalid, match=r"Unknown format 'v1'\. Choose one of: v2\.1, v3\.0 \(--format\)"):
        open_writer(tmp_path / "out", version="v1")
    odd = {"image": Feature("video", (5, 8, 3))}
    with pytest.raises(DatasetInvalid, match=r"are 8x5: video needs even numbers\. Convert without --video"):
        DatasetWriter(tmp_path / "out", fps=20, robot_type="", features=odd)
