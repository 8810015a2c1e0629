"""A training run, from the real lerobot package's dataset to checkpoints that are policies, and on after a stop."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from training.check import DatasetUnsound
from training.checkpoints import CannotResume
from training.data import Dataset
from training.data.errors import DatasetInvalid
from training.experiment import override
from training.experiments import find_experiment
from training.inputs import open_inputs
from training.loop import Diverged, train
from training.pi05 import load_policy
from training.pi05.checkpoint.step_directory import read_assets
from training.pi05.checkpoint.weights import read_params
from training.pi05.model.params import ParamsMismatch
from training.pi05.transforms.tokenizer import TokenizerInvalid
from training.run_directory import RunExists

NAME = "pi05_maniskill_stackcube_small"


pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture(scope="module")
def experiment(lerobot_dataset, tiny_settings):
    return override(find_experiment(NAME), [*tiny_settings, f"dataset={lerobot_dataset}"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(experiment, runs):
    """A run of six steps that nothing interrupted: its last step directory."""
    return train(experiment, "whole", runs)


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def computed(run):
    """What a run computed, without the times that it took."""
    return [(line["step"], line["loss"], line["grad_norm"], line["param_norm"]) for line in metrics(run)]


def test_a_run_leaves_openpis_layout_with_all_that_a_policy_is(whole):
    run = whole.parent
    assert whole.name == "5"
    assert sorted(child.name for child in run.iterdir() if child.is_dir()) == ["2", "5", "tensorboard"]
    assert {"_CHECKPOINT_METADATA", "params", "train_state", "assets"} <= {child.name for child in whole.iterdir()}
    assets = {str(path.relative_to(whole / "assets")) for path in (whole / "assets").rglob("*") if path.is_file()}
    assert {"policy_spec.json", "tokenizer.model", "maniskill/norm_stats.json"} <= assets


def test_the_train_state_has_openpis_parts(whole):
    tree = json.loads((whole / "train_state" / "_METADATA").read_text())["tree_metadata"]
    top = {key.split("'")[1] for key in tree}
    assert top == {"step", "params", "model_def", "opt_state", "ema_params"}


def test_every_step_is_logged_with_what_it_cost(whole):
    lines = metrics(whole.parent)
    assert [line["step"] for line in lines] == list(range(6))
    for line in lines:
        assert np.isfinite(line["loss"])
        assert line["samples_per_second"] == pytest.approx(2 / line["step_seconds"], rel=1e-6)
        assert 0 <= line["data_wait_share"] <= 1
    assert lines[0]["learning_rate"] == pytest.approx(1e-3 / 2)


def test_held_out_episodes_are_validated_on_every_so_often_and_after_the_last_step(experiment, runs):
    held_out = override(experiment, ["held_out=0.3", "validate_every=4", "steps=5"])
    run = train(held_out, "validated", runs).parent
    lines = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 4]
    for line in lines:
        assert np.isfinite(line["loss"])
        errors, mean = (
            [line[f"{part}/action_{index}"] for index in range(7)] for part in ("action_error", "mean_action")
        )
        assert min(errors) > 0
        assert min(mean) > 0
    assert lines[0]["loss"] != lines[1]["loss"]
    assert lines[0]["mean_action/action_0"] == lines[1]["mean_action/action_0"]


def test_a_dataset_in_which_a_check_finds_an_error_is_not_trained_on(experiment, runs):
    with pytest.raises(DatasetUnsound) as error:
        train(override(experiment, ["model.action_horizon=20"]), "unsound", runs)
    assert "short-episodes: 3 of 3 episodes are shorter than the action horizon of 20" in error.value.message
    assert error.value.message.endswith("To train on it as it is: --ignore-check short-episodes")
    assert not (runs / NAME / "unsound").exists()


def test_a_checkpoint_is_a_policy_for_the_datasets_own_frames(whole, lerobot_dataset):
    policy = load_policy(whole)
    dataset = Dataset(lerobot_dataset)
    observation = {
        "observation/image": dataset.frame("image", 0),
        "observation/wrist_image": dataset.frame("wrist_image", 0),
        "observation/state": dataset.column("state")[0],
        "prompt": dataset.prompts(np.array([0]))[0],
    }
    chunk = policy(observation, noise_seed=0)
    assert chunk.actions.shape == (4, 7)
    assert np.all(np.isfinite(chunk.actions))


def test_the_spec_says_where_the_policy_came_from_and_what_it_was_trained_on(whole, lerobot_dataset):
    spec = read_assets(whole).spec
    dataset = Dataset(lerobot_dataset)
    assert str(spec.policy.checkpoint) == f"{NAME}/whole/5"
    assert spec.policy.checkpoint.run_id
    assert spec.policy.checkpoint.run_id == read_assets(whole.parent / "2").spec.policy.checkpoint.run_id
    assert (spec.policy.action_horizon, spec.policy.execution_horizon, spec.policy.denoising_steps) == (4, 2, 2)
    assert spec.policy.parameter_count == load_policy(whole).parameter_count
    assert [camera.key for camera in spec.observation.cameras] == ["observation/image", "observation/wrist_image"]
    assert spec.observation.prompt.trained == tuple(sorted(dataset.metadata.tasks.values()))
    np.testing.assert_allclose(spec.action.q99, np.quantile(dataset.column("actions"), 0.99, axis=0), rtol=1e-5)
    assert spec.simulation is None  # a plain LeRobot dataset knows no simulator


def test_a_resumed_run_computes_what_an_uninterrupted_one_does(experiment, runs, whole):
    train(override(experiment, ["steps=3"]), "resumed", runs)
    assert computed(whole.parent)[:3] == computed(runs / NAME / "resumed")
    last = train(experiment, "resumed", runs, resume=True)
    assert computed(whole.parent) == computed(last.parent)


def test_going_on_with_a_finished_run_changes_nothing(experiment, runs, whole):
    before = computed(whole.parent)
    assert train(experiment, "whole", runs, resume=True) == whole
    assert computed(whole.parent) == before


def test_a_run_of_that_name_is_not_written_over_unasked(experiment, runs, whole):
    with pytest.raises(RunExists) as error:
        train(experiment, "whole", runs)
    assert error.value.message == (
        f"The run {whole.parent} exists. Pass --resume to go on with it, --overwrite to delete it and start anew, "
        "or another --exp-name."
    )
    assert whole.is_dir()


def test_a_folder_that_is_no_run_is_never_deleted(experiment, runs):
    folder = runs / NAME / "thesis"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("ten years of work")
    with pytest.raises(RunExists) as error:
        train(experiment, "thesis", runs, overwrite=True)
    assert error.value.message == f"{folder} is no run (it has no experiment.json), so --overwrite does not delete it."
    assert (folder / "thesis.tex").exists()


def test_there_must_be_something_to_resume(experiment, runs):
    with pytest.raises(CannotResume) as error:
        train(experiment, "never", runs, resume=True)
    assert error.value.message == (
        f"There is no run at {runs / NAME / 'never'} to resume. Leave out --resume to start it."
    )


def test_a_run_that_saved_nothing_cannot_be_resumed(experiment, runs, whole):
    folder = runs / NAME / "unsaved"
    folder.mkdir(parents=True)
    for name in ("experiment.json", "run.json"):
        (folder / name).write_bytes((whole.parent / name).read_bytes())
    with pytest.raises(CannotResume) as error:
        train(experiment, "unsaved", runs, resume=True)
    assert error.value.message == f"{folder} holds no saved step to resume. Start anew with --overwrite."


def test_a_run_goes_on_with_the_settings_that_it_began_with(experiment, runs, whole):
    changed = override(experiment, ["batch_size=3", "model.expert.mlp_width=32", "steps=12"])
    with pytest.raises(CannotResume) as error:
        train(changed, "whole", runs, resume=True)
    assert error.value.message == (
        f"The run {whole.parent} began with other settings: batch_size was 2, is 3; model.expert.mlp_width was 16, "
        "is 32. Use the same ones, or another --exp-name."
    )


def test_a_run_goes_on_with_the_data_that_it_began_with(experiment, runs, whole, lerobot_dataset):
    other = override(experiment, [f"dataset={lerobot_dataset.parent / 'lerobot_v30_video'}"])
    with pytest.raises(CannotResume) as error:
        train(other, "whole", runs, resume=True)
    assert error.value.message == (
        f"The dataset is not the one that the run {whole.parent} began with. "
        "Pass that one, or start anew with --overwrite or another --exp-name."
    )


@pytest.fixture(scope="module")
def divergence(experiment, runs):
    """How runs end whose first update leaves weights that the second step cannot compute with, by how often they were
    logged and saved."""

    def of(name, every):
        explosive = override(experiment, ["optimizer.peak_lr=1e10", f"save_every={every}", f"log_every={every}"])
        with pytest.raises(Diverged) as error:
            train(explosive, name, runs)
        return error.value.message

    return {"each": of("diverged_each", 1), "last": of("diverged_last", 6)}


def test_a_run_that_diverges_says_at_which_step_though_it_looks_at_the_last_alone(divergence, runs):
    folder = runs / NAME / "diverged_last"
    told = re.match(
        r"(loss|grad_norm|param_norm) is (nan|inf) at step (\d), the first that is not finite\. ", divergence["last"]
    )
    assert 0 < int(told[3]) < 5
    assert divergence["each"].startswith(told[0])
    assert divergence["last"] == (
        f"{told[0]}The batch of that step is saved in {folder / 'diverged_batch.npz'}. No step is saved yet. Begin "
        "anew with a lower rate, with --overwrite or another --exp-name: --set optimizer.peak_lr=…"
    )


def test_the_batch_that_is_saved_is_that_of_the_step_at_which_a_run_diverged(divergence, experiment, runs):
    step = int(re.search(r"at step (\d)", divergence["last"])[1])
    batch = open_inputs(experiment, "read", None).samples(step)
    with np.load(runs / NAME / "diverged_last" / "diverged_batch.npz") as saved:
        leaves, _ = jax.tree.flatten_with_path(batch)
        assert set(saved.files) == {jax.tree_util.keystr(path) for path, _ in leaves}
        for path, leaf in leaves:
            np.testing.assert_array_equal(saved[jax.tree_util.keystr(path)], leaf)


def test_a_run_that_diverges_goes_on_from_its_last_step_and_saves_none_that_is_not_finite(divergence, runs):
    folder = runs / NAME / "diverged_each"
    steps = [child for child in folder.iterdir() if child.name.isdigit()]
    newest = max(int(step.name) for step in steps)
    assert divergence["each"].endswith(
        f"Go on from step {newest} with a lower rate, with --resume: --set optimizer.peak_lr=…"
    )
    for step in steps:
        assert all(np.all(np.isfinite(leaf)) for leaf in read_params(step).values())


@pytest.fixture(scope="module")
def based(experiment, whole):
    """Two steps from the weights of the uninterrupted run; fresh ones would be others, by another seed."""
    return override(experiment, [f"init={whole}", "steps=2", "seed=7"])


@pytest.fixture(scope="module")
def from_whole(based, runs):
    return train(based, "from_whole", runs)


def test_a_run_starts_from_the_weights_that_it_is_given(from_whole, whole):
    before, after = read_params(whole), read_params(from_whole)
    for path, leaf in after.items():
        np.testing.assert_allclose(leaf, before[path], atol=5e-3)  # two updates of at most 1e-3 a step
    assert np.abs(after["action_in_proj/kernel"]).max() > 0.1
    report = json.loads((from_whole.parent / "init.json").read_text())
    assert report["source"] == str(whole)
    assert {leaf["from"] for leaf in report["leaves"].values()} == {str(whole)}
    assert json.loads((from_whole / "assets" / "experiment.json").read_text())["init"] == str(whole)


def test_a_resumed_run_does_not_read_its_base_again(based, runs, whole, from_whole):
    moved = whole.rename(whole.with_name("moved"))
    try:
        last = train(override(based, ["steps=3"]), "from_whole", runs, resume=True)
    finally:
        moved.rename(whole)
    assert [line["step"] for line in metrics(last.parent)] == [0, 1, 2]


def test_a_resumed_run_cannot_change_its_base(based, runs, whole, from_whole):
    with pytest.raises(CannotResume) as error:
        train(override(based, ["init="]), "from_whole", runs, resume=True)
    assert error.value.message == (
        f"The run {from_whole.parent} began with other settings: init was {whole}, is empty. "
        "Use the same ones, or another --exp-name."
    )


def test_a_base_that_does_not_fit_is_told_before_the_runs_folder_is_made(experiment, runs, whole):
    wider = override(experiment, [f"init={whole}", "model.action_dim=9"])
    with pytest.raises(ParamsMismatch):
        train(wider, "misfit", runs)
    assert not (runs / NAME / "misfit").exists()


def test_a_run_of_before_a_setting_existed_goes_on_with_its_default(experiment, runs, whole):
    settings = whole.parent / "experiment.json"
    tree = json.loads(settings.read_text())
    del tree["init"], tree["init_fresh"]
    settings.write_text(json.dumps(tree))
    assert train(experiment, "whole", runs, resume=True) == whole


def test_a_tokenizer_with_more_pieces_than_the_model_embeds_is_refused(experiment, runs):
    with pytest.raises(TokenizerInvalid) as error:
        train(override(experiment, ["model.vocabulary=100"]), "pieces", runs)
    assert error.value.message == (
        "The tokenizer has 768 pieces but the model embeds 100. Serve these weights with the tokenizer of their "
        "training (--tokenizer), or train with --set model.vocabulary=768."
    )
    assert not (runs / NAME / "pieces").exists()


def test_a_dataset_that_is_wider_than_the_model_says_which_setting_makes_room(experiment, runs, lerobot_dataset):
    with pytest.raises(DatasetInvalid) as error:
        train(override(experiment, ["model.action_dim=7"]), "narrow", runs)
    assert error.value.message == (
        f"'state' of {lerobot_dataset} has 8 dimensions but the model holds 7. Train with --set model.action_dim=8."
    )


@pytest.fixture(scope="module")
def command(runs, lerobot_dataset, tiny_settings):
    """`train` with a run of the name `stopped`, as a process begins it."""
    settings = [part for setting in tiny_settings for part in ("--set", setting)]
    program = "from training.cli import main; main()"
    return [
        *(sys.executable, "-c", program, NAME, "--exp-name", "stopped", "--runs", str(runs)),
        *("--dataset", str(lerobot_dataset), *settings),
    ]


@pytest.fixture(scope="module")
def interrupted(command):
    """A real process that got Ctrl-C after its second step: its exit code and what it said."""
    long = ("--set", "steps=100000", "--set", "save_every=100000")
    with subprocess.Popen([*command, *long], stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("step 2/"):
                process.send_signal(signal.SIGINT)
    return process.returncode, "".join(said)


def test_ctrl_c_saves_the_state_reached_and_exits_with_130(interrupted, runs):
    code, said = interrupted
    (step,) = (child for child in (runs / NAME / "stopped").iterdir() if child.name.isdigit())
    assert code == 130
    assert said.splitlines()[-1] == f"train: stopped; {step} is saved. Go on with --resume."
    assert metrics(step.parent)[-1]["step"] == int(step.name)
    assert load_policy(step).parameter_count > 0
