"""What a run reads: several datasets at once, episodes that it never sees, and frames that cannot be decoded."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.check import DatasetUnsound
from training.checkpoints import CannotResume
from training.cli import main
from training.data import DatasetsDiffer, open_data
from training.experiment import override
from training.experiments import find_experiment
from training.inputs import open_inputs
from training.loop import train
from training.pi05.checkpoint.step_directory import read_assets
from training.telemetry.sinks import SinkMissing

NAME = "pi05_maniskill_stackcube_small"
ROWS = 39
"""Of each dataset."""

pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture(scope="module")
def datasets(lerobot_dataset):
    """One with images and one with videos."""
    return lerobot_dataset, lerobot_dataset.parent / "lerobot_v30_video"


@pytest.fixture(scope="module")
def experiment(datasets, tiny_settings):
    """Two updates on two datasets, validated after each."""
    images, videos = datasets
    more = [f"dataset={images}=2, {videos}", "held_out=0.3", "validate_every=1", "steps=2"]
    return override(find_experiment(NAME), [*tiny_settings, *more])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def mixed(experiment, runs):
    """The last step directory of a run that nothing interrupted."""
    return train(experiment, "mixed", runs)


def lines(run, file, *names):
    """The lines of a run's file, of `metrics.jsonl` those parts that do not tell of time."""
    records = [json.loads(line) for line in (run / file).read_text().splitlines()]
    return [{name: record[name] for name in names or record} for record in records]


def test_a_run_draws_from_every_dataset_and_validates_on_the_held_out_episodes_of_each(experiment):
    inputs = open_inputs(experiment, "looked at")
    trained, validated = set(inputs.loader.anchors.tolist()), set(inputs.validation.anchors.tolist())
    assert trained.isdisjoint(validated)
    assert trained | validated == set(range(2 * ROWS))
    for part in (trained, validated):
        assert {row >= ROWS for row in part} == {False, True}
    drawn = np.concatenate([inputs.loader.rows(step) for step in range(5_000)])
    assert np.mean(drawn < ROWS) == pytest.approx(2 / 3, abs=1e-4)


def test_a_run_on_two_datasets_logs_its_validation_and_says_what_it_was_trained_on(mixed, experiment):
    records = lines(mixed.parent, "validation.jsonl")
    assert [record["step"] for record in records] == [0, 1]
    for record in records:
        assert np.isfinite(record["loss"])
        assert record["action_error/action_0"] > 0
    data = open_data(experiment.datasets, seed=experiment.seed, held_out=0.3)
    assets, stats = read_assets(mixed), data.norm_stats()
    assert assets.spec.policy.dataset_fingerprint == data.mixture.fingerprint
    np.testing.assert_allclose(assets.norm_stats["actions"].q99, stats["actions"].q99)
    everything = open_data(experiment.datasets, seed=experiment.seed).norm_stats()
    assert np.any(stats["actions"].mean != everything["actions"].mean)


def test_a_resumed_run_on_two_datasets_computes_what_an_uninterrupted_one_does(experiment, runs, mixed):
    train(override(experiment, ["steps=1"]), "resumed", runs)
    again = train(experiment, "resumed", runs, resume=True)
    numbers = ("step", "loss", "grad_norm", "param_norm")
    assert lines(again.parent, "metrics.jsonl", *numbers) == lines(mixed.parent, "metrics.jsonl", *numbers)
    assert lines(again.parent, "validation.jsonl") == lines(mixed.parent, "validation.jsonl")


def test_a_run_does_not_go_on_with_other_weights_of_its_datasets(experiment, datasets, runs, mixed):
    images, videos = datasets
    with pytest.raises(CannotResume, match="^The dataset is not the one that the run .*mixed began with"):
        train(override(experiment, [f"dataset={images}=3,{videos}"]), "mixed", runs, resume=True)


@pytest.fixture
def command(monkeypatch, capfd, tmp_path, tiny_settings):
    """Runs `train NAME …` in a folder of its own; gives the exit code and what it complained."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        settings = [part for setting in tiny_settings for part in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["train", NAME, *settings, *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, capfd.readouterr().err

    return run


def test_datasets_that_differ_end_with_a_table_before_a_run_is_begun(command, datasets, tmp_path):
    other = Path(shutil.copytree(datasets[0], tmp_path / "other"))
    info = json.loads((other / "meta/info.json").read_text())
    (other / "meta/info.json").write_text(json.dumps({**info, "fps": 30}))
    code, err = command("--exp-name", "a", "--dataset", f"{datasets[0]},other=2")
    first, titles, fps, *_ = err.splitlines()
    assert code == DatasetsDiffer("").exit_code
    assert first == (
        "train: The datasets differ in fps, so they cannot be mixed. Convert them alike, or train on one kind "
        "(--dataset)."
    )
    assert titles.split() == [str(datasets[0]), "other"]
    assert fps.split() == ["*", "fps", "20", "30"]
    assert not (tmp_path / "runs").exists()


def test_what_is_found_before_training_names_the_dataset_that_it_is_found_in(datasets, experiment, capsys):
    open_inputs(experiment, "looked at")
    found = [line for line in capsys.readouterr().err.splitlines() if line.startswith("check: ")]
    few = "warning few-episodes: The dataset has 3 episodes."
    assert [line.split(" A policy")[0] for line in found if "few-episodes" in line] == [
        f"check: {dataset}: {few}" for dataset in datasets
    ]


@pytest.fixture
def broken(tmp_path, lerobot_dataset):
    """A dataset with two damaged PNGs: the very first, which the check looks at, and one that it does not."""
    root = Path(shutil.copytree(lerobot_dataset.parent / "lerobot_v21_image", tmp_path / "broken"))
    for episode, frame in ((0, 0), (1, 5)):
        path = root / f"data/chunk-000/episode_{episode:06}.parquet"
        table = pq.read_table(path)
        cells = table["image"].to_pylist()
        cells[frame]["bytes"] = cells[frame]["bytes"][:60]
        pq.write_table(table.set_column(0, "image", pa.array(cells, table.schema.field("image").type)), path)
    return root


def test_frames_that_cannot_be_decoded_are_counted_and_left_out_when_asked_to(command, broken, tmp_path):
    arguments = ("--dataset", "broken", "--set", "steps=2")
    code, err = command("--exp-name", "strict", *arguments)
    assert code == DatasetUnsound("").exit_code
    assert "corrupt-frame: Frame 0 of episode 0 (row 0, camera 'image') in " in err
    assert not (tmp_path / "runs").exists()
    code, err = command("--exp-name", "skipped", *arguments, "--skip-corrupt")
    assert code == 0, err
    assert "Skipped 2 of 78 frames of broken that cannot be decoded. The first: Frame 0 of episode 0 (row 0, " in err
    run = tmp_path / "runs" / NAME / "skipped"
    assert json.loads((run / "run.json").read_text())["skipped_frames"] == 2
    assert [record["step"] for record in lines(run, "metrics.jsonl", "step")] == [0, 1]
    short = ("model.action_horizon=4", "execution_horizon=2", "held_out=0")
    experiment = override(find_experiment(NAME), [f"dataset={broken}", *short])
    inputs = open_inputs(experiment, "looked at", skip_corrupt=True)
    assert sorted({*range(ROWS)} - {*inputs.loader.anchors.tolist()}) == [0, 18]


def test_a_run_notes_which_rows_it_draws_from_and_validates_on(experiment):
    inputs = open_inputs(experiment, "looked at")
    rows, validated = inputs.loader.anchors, inputs.validation.anchors
    noted = inputs.facts.sample_rows
    assert len(noted) == 16
    assert open_inputs(experiment, "looked at").facts.sample_rows == noted
    for loader, before in ((inputs.loader, rows), (inputs.validation, validated)):
        loader.anchors = before[1:]  # a frame that only this process cannot decode
        assert inputs.facts.sample_rows != noted
        loader.anchors = before


def test_a_missing_wandb_is_told_before_the_runs_folder_is_made(experiment, runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SinkMissing) as error:
        train(experiment, "watched", runs, wandb=True)
    assert error.value.message == "--wandb needs the package wandb: pip install wandb, or leave --wandb out."
    assert not (runs / NAME / "watched").exists()
