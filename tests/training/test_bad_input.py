"""What `train` says of data and checkpoints that it cannot use: one message, exit code 1, and no run is begun."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.cli import main
from training.data import DatasetWriter, Feature
from training.experiment import override
from training.experiments import find_experiment
from training.inputs import open_inputs

NAME = "pi05_maniskill_stackcube_small"

pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture
def complaint(monkeypatch, capsys, tmp_path, tiny_settings):
    """Runs `train NAME …` in a folder of its own, which must fail; gives the lines that it said last."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        settings = [part for setting in tiny_settings for part in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["train", NAME, "--exp-name", "a", *settings, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 1
        assert not (tmp_path / "runs").exists()
        said = capsys.readouterr().err
        return said[said.index("train: ") :].splitlines()

    return run


@pytest.fixture
def copy(tmp_path, lerobot_dataset):
    """A dataset of the real package under the name `broken`."""

    def make(name):
        return Path(shutil.copytree(lerobot_dataset.parent / name, tmp_path / "broken"))

    return make


def test_a_dataset_without_the_keys_shows_what_it_has_and_offers_no_flag(complaint, tmp_path):
    features = {"top": Feature("image", (8, 8, 3)), "observation.state": Feature("float32", (2,))}
    with DatasetWriter(tmp_path / "broken", fps=20, robot_type="", features=features) as writer:
        columns = {"observation.state": np.zeros((2, 2), np.float32)}
        writer.add_episode(columns, {"top": np.zeros((2, 8, 8, 3), np.uint8)}, "task")
        writer.write_metadata()
        writer.commit()
    assert complaint("--dataset", "broken") == [
        "train: broken should not be trained on:",
        "  missing-column: The dataset has no 'state' and no 'actions'. It has: top, observation.state, timestamp, "
        "frame_index, episode_index, index, task_index. Rename its columns, or convert the recordings with train "
        "convert.",
    ]


def test_datasets_of_other_shapes_are_shown_in_a_table(complaint, copy, lerobot_dataset):
    info = copy("lerobot_v30_image") / "meta/info.json"
    features = json.loads(info.read_text())["features"]
    features["actions"]["shape"] = [6]
    info.write_text(json.dumps({**json.loads(info.read_text()), "features": features}))
    first, titles, *rows = complaint("--dataset", f"{lerobot_dataset},broken")
    assert first == (
        "train: The datasets differ in actions, so they cannot be mixed. Convert them alike, or train on one kind "
        "(--dataset)."
    )
    assert titles.split() == [str(lerobot_dataset), "broken"]
    assert [row.split() for row in rows] == [
        ["fps", "20", "20"],
        ["state", "[8]", "[8]"],
        ["*", "actions", "[7]", "[6]"],
        ["cameras", *["image", "128x96,", "wrist_image", "128x96"] * 2],
    ]


def test_a_corrupt_png_is_named_with_its_file_and_frame(complaint, copy):
    """One that the check before training does not look at."""
    path = copy("lerobot_v21_image") / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    cells = table["image"].to_pylist()
    cells[5]["bytes"] = cells[5]["bytes"][:60]
    pq.write_table(table.set_column(0, "image", pa.array(cells, table.schema.field("image").type)), path)
    (line,) = [line for line in complaint("--dataset", "broken") if line.startswith("train: ")]
    named = "train: Frame 5 of episode 1 (row 18, camera 'image') in broken/data/chunk-000/episode_000001.parquet "
    assert line.startswith(f"{named}cannot be decoded: ")
    assert line.endswith(". Convert or download the dataset again, or pass --skip-corrupt.")


@pytest.fixture
def truncated(copy):
    """A dataset with a video that a download left half."""
    root = copy("lerobot_v21_video")
    video = root / "videos/chunk-000/image/episode_000001.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    return root


def test_a_truncated_mp4_is_named_with_its_file_and_frame(complaint, truncated):
    assert complaint("--dataset", "broken") == [
        "train: broken should not be trained on:",
        "  corrupt-frame: Frame 0 of episode 1 (row 13, camera 'image') in "
        "broken/videos/chunk-000/image/episode_000001.mp4 cannot be decoded: Invalid data found when processing "
        "input. Convert or download the dataset again, or pass --skip-corrupt. Whatever made the file did not finish "
        "it.",
        "To train on it as it is: --skip-corrupt",
    ]


def test_the_frames_of_a_truncated_mp4_are_counted_when_they_are_skipped(truncated, tiny_settings, capsys):
    experiment = override(find_experiment(NAME), [*tiny_settings, f"dataset={truncated}"])
    inputs = open_inputs(experiment, "a", skip_corrupt=True)
    assert inputs.facts.skipped_frames == 9
    assert not set(range(13, 22)) & set(inputs.loader.anchors.tolist())
    assert f"Skipped 9 of 78 frames of {truncated} that cannot be decoded. The first: Frame 0 of" in (
        capsys.readouterr().err
    )


def test_a_checkpoint_of_another_architecture_is_named_with_what_it_holds(complaint, lerobot_dataset, tiny_steps):
    (line,) = complaint("--dataset", lerobot_dataset, "--init", tiny_steps["pi0"])
    assert line.startswith(
        f"train: The parameters in {tiny_steps['pi0']} are not those of this pi05 model. It holds pi0 weights "
        "(state_proj, action_time_mlp_in, action_time_mlp_out). 10 missing: "
    )
    assert "9 unexpected: PaliGemma/llm/final_norm_1/scale, " in line


def test_there_must_be_a_run_to_resume(complaint, lerobot_dataset):
    assert complaint("--dataset", lerobot_dataset, "--resume") == [
        f"train: There is no run at runs/{NAME}/a to resume. Leave out --resume to start it."
    ]


def test_more_devices_than_the_batch_divides_say_what_would(complaint, lerobot_dataset, monkeypatch):
    device = jax.devices()[0]
    monkeypatch.setattr("jax.devices", lambda *_: [device] * 3)
    (line,) = complaint("--dataset", lerobot_dataset)
    assert line == (
        "train: batch_size is 2, which the 3 devices do not divide. Set a multiple of 3: --set batch_size=3, or use "
        "fewer devices (CUDA_VISIBLE_DEVICES)."
    )
