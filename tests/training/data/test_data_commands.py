"""`train convert` and `train stats`, through typer."""

import json
import sys

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from training.commands.check import check_command
from training.commands.convert import convert_command
from training.commands.stats import stats_command
from training.data import NORM_STATS_FILE, Dataset, HubUnavailable, OutputExists


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "pull.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("traj_0")
        group["actions"] = np.zeros((4, 7), np.float32)
        group["obs/agent/qpos"] = np.ones((5, 9), np.float32)
        group["obs/sensor_data/base_camera/rgb"] = np.zeros((5, 8, 8, 3), np.uint8)
    arguments = {"control_mode": "pd_ee_delta_pose", "sim_config": {"sim_freq": 100}}
    document = {"env_info": {"env_id": "PullCube-v1", "env_kwargs": arguments}, "episodes": [{"episode_id": 0}]}
    path.with_suffix(".json").write_text(json.dumps(document))
    return path


def run(*arguments):
    app = typer.Typer()
    app.command("convert")(convert_command)
    app.command("stats")(stats_command)
    app.command("check")(check_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


FACTS = ("--prompt", "Pull it", "--fps", 20, "--robot-uids", "panda")


def test_convert_then_stats(recording, tmp_path):
    out = tmp_path / "pull"
    result = run("convert", recording, out, "--format", "v2.1", "--state", "agent/qpos[0:3]", "--video", *FACTS)
    assert result.exit_code == 0, result.output
    assert "PullCube-v1, pd_ee_delta_pose at 20 Hz" in result.output
    assert "image 8x8" in result.output
    assert "agent/qpos[0:3]" in result.output
    dataset = Dataset(out)
    assert (dataset.metadata.version, dataset.features["state"].shape) == ("v2.1", (3,))
    assert dataset.features["image"].dtype == "video"
    (out / NORM_STATS_FILE).unlink()
    result = run("stats", out)
    assert result.exit_code == 0, result.output
    assert "qpos_2" in result.output
    assert "4 rows of 1 episodes" in result.output
    assert (out / NORM_STATS_FILE).is_file()


def test_errors_reach_the_command_line_as_they_are(recording, tmp_path):
    (tmp_path / "pull").mkdir()
    assert isinstance(run("convert", recording, tmp_path / "pull", *FACTS).exception, OutputExists)


def test_a_lone_path_is_explained(recording):
    result = run("convert", recording)
    assert result.exit_code == 2
    assert "Name the recording and the dataset" in result.output


@pytest.mark.parametrize("verb", ["check", "stats"])
def test_a_dataset_may_be_named_by_its_id_on_the_hub(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as far as a test gets without the Hub
    error = run(verb, "robots/cubes").exception
    assert isinstance(error, HubUnavailable)
    assert error.message.startswith("There is no folder robots/cubes, and to download it from the Hugging Face Hub ")
