"""A run's checkpoints: openpi's restore here, and ours have its structure key for key and file for file."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from training import checkpoints as checkpoints_module
from training.checkpoints import CannotResume, RunCheckpoints, SaveFailed
from training.experiment import Experiment
from training.pi05.checkpoint.step_directory import Assets
from training.pi05.checkpoint.weights import read_params
from training.pi05.load import load_policy
from training.pi05.model.params import flatten
from training.pi05.transforms.normalization import read_norm_stats
from training.pi05.transforms.tokenizer import Tokenizer
from training.train_state import TrainState, optimizer

ASSET_ID = "physical-intelligence/libero"
WRITTEN_BY_0_12 = {"commit_success.txt"}
"""orbax 0.12 writes this file into every folder that it completes; 0.11 did so on object stores only."""


@pytest.fixture(scope="module")
def openpis(openpi_data):
    """A step with its train state, written by openpi's own checkpoint manager."""
    return openpi_data / "checkpoints" / "tiny_pi05_trainstate" / "700"


@pytest.fixture(scope="module")
def experiment(tiny_pi05):
    return Experiment("tiny", tiny_pi05.config, "none")


@pytest.fixture(scope="module")
def assets(openpis, libero_spec, tiny_tokenizer):
    stats = read_norm_stats(openpis / "assets" / ASSET_ID / "norm_stats.json")
    return Assets(ASSET_ID, stats, libero_spec, Tokenizer.load(tiny_tokenizer))


@pytest.fixture(scope="module")
def state(tiny_pi05, experiment):
    """A state of the tiny model after 701 updates, none of them real."""
    params = jax.tree.map(jnp.asarray, tiny_pi05.params)
    opt_state = optimizer(experiment.optimizer, experiment.decay_steps).init(params)
    return TrainState(jnp.int32(701), params, opt_state, jax.tree.map(lambda leaf: leaf + 1, params))


@pytest.fixture(scope="module")
def run(tmp_path_factory, assets, experiment, state):
    """A run's folder with step 700 of ours in it."""
    folder = tmp_path_factory.mktemp("run")
    with RunCheckpoints(folder, assets, experiment, "run") as checkpoints:
        assert checkpoints.save(state) == 700
        checkpoints.wait()
    return folder


def restored(folder, assets, experiment, template):
    with RunCheckpoints(folder, assets, experiment, "run") as checkpoints:
        return checkpoints.restore(template)


@pytest.fixture(scope="module")
def of_openpi(tmp_path_factory, openpis, assets, experiment, state):
    """openpi's train state as ours."""
    folder = tmp_path_factory.mktemp("openpi")
    shutil.copytree(openpis, folder / "700")
    return restored(folder, assets, experiment, jax.eval_shape(lambda: state))


def parsed(path):
    return json.loads(path.read_text())


def names(folder):
    """Every file, but the data's own, which are named by chance."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in files if path.parent.name != "d"}


@pytest.mark.parametrize("item", ["params", "train_state"])
def test_what_is_saved_has_openpis_tree_key_for_key_and_in_its_order(run, openpis, item):
    ours, theirs = (parsed(step / item / "_METADATA") for step in (run / "700", openpis))
    assert ours.pop("use_ocdbt")  # a field of orbax 0.12, which 0.11 does not read
    assert ours == theirs
    assert list(ours["tree_metadata"]) == list(theirs["tree_metadata"])


@pytest.mark.parametrize("item", ["params", "train_state"])
def test_what_is_saved_has_openpis_arrays_shape_for_shape(run, openpis, item):
    ours, theirs = (parsed(step / item / "array_metadatas" / "process_0") for step in (run / "700", openpis))
    assert ours == theirs
    ours, theirs = (parsed(step / item / "_sharding") for step in (run / "700", openpis))
    assert list(ours) == list(theirs)


@pytest.mark.parametrize("item", ["params", "train_state", "assets"])
def test_what_is_saved_has_openpis_files(run, openpis, item):
    ours = {name for name in names(run / "700" / item) if name not in WRITTEN_BY_0_12}
    added = {"policy_spec.json", "tokenizer.model", "experiment.json"} if item == "assets" else set()
    assert ours == names(openpis / item) | added


def test_a_step_has_openpis_items_by_its_handlers(run, openpis):
    ours, theirs = (parsed(step / "_CHECKPOINT_METADATA") for step in (run / "700", openpis))
    assert ours.keys() == theirs.keys()
    assert ours["item_handlers"].keys() == theirs["item_handlers"].keys()
    for item in ("params", "train_state"):
        assert ours["item_handlers"][item] == theirs["item_handlers"][item]
    top = {child.name for child in (run / "700").iterdir()} - WRITTEN_BY_0_12
    assert top == {child.name for child in openpis.iterdir()}


def test_norm_stats_are_written_as_openpi_writes_them(run, openpis):
    ours, theirs = (parsed(step / "assets" / ASSET_ID / "norm_stats.json") for step in (run / "700", openpis))
    assert ours == theirs


def test_a_state_survives_the_disk(run, assets, experiment, state):
    back = restored(run, assets, experiment, jax.eval_shape(lambda: state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_openpis_train_state_is_restored_leaf_by_leaf(of_openpi, openpis):
    """Against orbax's own reading of the file, by name."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(openpis / "train_state").item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        raw = checkpointer.restore(openpis / "train_state", restore_args=as_numpy)
    adam, schedule = of_openpi.opt_state[1][0], of_openpi.opt_state[1][2]
    pairs = {
        "params": (of_openpi.params, raw["params"]),
        "mu": (adam.mu, raw["opt_state"][1][0]["mu"]),
        "nu": (adam.nu, raw["opt_state"][1][0]["nu"]),
    }
    for ours, theirs in pairs.values():
        flat = flatten(theirs)
        for path, leaf in flatten(ours).items():
            np.testing.assert_array_equal(leaf, flat.pop(f"{path}/value"))
        assert not flat
    assert (int(of_openpi.step), int(adam.count), int(schedule.count)) == (700, 1, 1)


def test_openpis_moments_are_those_of_one_clipped_gradient(of_openpi):
    adam = of_openpi.opt_state[1][0]
    gradients = [np.asarray(leaf) / np.float32(0.1) for leaf in jax.tree.leaves(adam.mu)]
    assert np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in gradients)) == pytest.approx(1, rel=1e-4)
    for gradient, second in zip(gradients, jax.tree.leaves(adam.nu), strict=True):
        np.testing.assert_allclose(second, 0.05 * np.square(gradient), rtol=1e-3)


def test_openpis_raw_and_averaged_weights_are_told_apart(of_openpi, openpis, tiny_pi05):
    served = read_params(openpis)
    for path, leaf in flatten(of_openpi.ema_params).items():
        np.testing.assert_array_equal(leaf, served[path])
    jax.tree.map(np.testing.assert_array_equal, of_openpi.params, tiny_pi05.params)
    assert any(np.any(leaf != served[path]) for path, leaf in flatten(tiny_pi05.params).items())


def test_a_policy_of_openpis_training_acts_as_openpi_served_it(openpis, openpi_data, libero_spec, tiny_tokenizer):
    policy = load_policy(openpis, spec=libero_spec, tokenizer=tiny_tokenizer, dtype="bfloat16")
    with np.load(openpi_data / "tiny_pi05_policy.npz") as arrays:
        prefix = "obs|a224|"
        observation = {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}
    with np.load(openpi_data / "tiny_pi05_trainstate_policy.npz") as served:
        noise, expected = served["noise"], served["actions"]
    (actions,) = policy.launch([policy.transform(observation)], noise[None]).actions()
    cosine = np.sum(actions * expected) / np.linalg.norm(actions) / np.linalg.norm(expected)
    assert cosine > 0.9999
    np.testing.assert_allclose(actions, expected, atol=0.05)


def test_a_run_without_averaging_keeps_its_weights_in_params_alone(tmp_path, assets, experiment, state):
    plain = state.replace(ema_params=None)
    with RunCheckpoints(tmp_path, assets, experiment, "run") as checkpoints:
        checkpoints.save(plain)
        checkpoints.wait()
        back = checkpoints.restore(jax.eval_shape(lambda: plain))
    jax.tree.map(np.testing.assert_array_equal, back, plain)


RESUME_ADVICE = "Resume with the settings that the run began with, or start anew with --overwrite."


def resume_refusal(*arguments):
    with pytest.raises(CannotResume) as error:
        restored(*arguments)
    return error.value.message


@pytest.mark.parametrize("item", ["params", "train_state"])
def test_a_damaged_step_says_which_folder_to_delete(tmp_path, run, assets, experiment, state, item):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "700" / item / "manifest.ocdbt").unlink()
    with pytest.raises(CannotResume) as error:
        restored(tmp_path / "run", assets, experiment, jax.eval_shape(lambda: state))
    assert error.value.message.startswith(f"{tmp_path}/run/700 cannot be restored: it is damaged (")
    assert error.value.message.endswith(
        ". Delete that folder to resume from the step before, or start anew with --overwrite."
    )


def test_a_state_of_another_size_is_refused_and_never_cut_to_fit(run, assets, experiment, state):
    narrow = jax.eval_shape(lambda: state)
    for params in (narrow.params, narrow.ema_params):
        params["action_in_proj"]["kernel"] = jax.ShapeDtypeStruct((7, 32), jnp.float32)
    assert resume_refusal(run, assets, experiment, narrow) == (
        f"{run}/700/params does not fit this experiment. "
        "1 of the wrong shape: params/action_in_proj/kernel is (32, 32), expected (7, 32). " + RESUME_ADVICE
    )


def test_leaves_that_a_state_lacks_or_has_too_many_are_named(run, assets, experiment, state):
    other = jax.eval_shape(lambda: state)
    for params in (other.params, other.ema_params):
        params["time_mlp_more"] = params.pop("time_mlp_in")
    assert resume_refusal(run, assets, experiment, other) == (
        f"{run}/700/params does not fit this experiment. "
        "2 missing: params/time_mlp_more/bias, params/time_mlp_more/kernel. "
        "2 unexpected: params/time_mlp_in/bias, params/time_mlp_in/kernel. " + RESUME_ADVICE
    )


def test_an_optimizer_of_another_kind_is_told_by_its_leaves(run, assets, experiment, state):
    moments, schedule = state.opt_state[1][0], state.opt_state[1][2]
    chain = (state.opt_state[0], (moments, state.opt_state[1][1], schedule._replace(count=jnp.zeros(3))))
    assert resume_refusal(run, assets, experiment, jax.eval_shape(lambda: state.replace(opt_state=chain))) == (
        f"{run}/700/train_state does not fit this experiment. "
        "1 of the wrong shape: opt_state/1/2/count is (), expected (3,). " + RESUME_ADVICE
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory, run):
    """Runs of a process that was killed in the save of step 1, by the moment."""
    folder = tmp_path_factory.mktemp("killed")
    program = Path(__file__).with_name("saves_that_are_killed.py")
    command = [sys.executable, str(program), str(run / "700"), str(folder)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout).values()) == {-signal.SIGKILL}
    return folder


@pytest.mark.parametrize(
    ("moment", "newest", "left_over"),
    [
        ("begun", 0, set()),
        ("arrays", 0, {"1.orbax-checkpoint-tmp"}),
        ("first_part", 0, {"1.orbax-checkpoint-tmp"}),
        ("unnamed", 0, {"1.orbax-checkpoint-tmp"}),
        ("deleting", 1, {"0"}),
    ],
)
def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_newest_step(
    killed, assets, experiment, moment, newest, left_over
):
    """And what it leaves of another is gone after the next save."""
    folder = killed / moment
    assert {child.name for child in folder.iterdir()} == {str(newest), *left_over}
    params = {"w": jnp.zeros(2)}
    opt_state = optimizer(experiment.optimizer, experiment.decay_steps).init(params)
    template = jax.eval_shape(lambda: TrainState(jnp.int32(0), params, opt_state, None))
    with RunCheckpoints(folder, assets, experiment, "run", keep=1) as checkpoints:
        state = checkpoints.restore(template)
        assert int(state.step) == newest + 1
        np.testing.assert_array_equal(state.params["w"], np.full(2, newest))
        checkpoints.save(state.replace(step=state.step + 1))
        checkpoints.wait()
    assert [child.name for child in folder.iterdir()] == [str(newest + 1)]


def saved_to_the_end(checkpoints, state):
    checkpoints.save(state)
    checkpoints.wait()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of writes given up
def test_a_disk_that_is_full_during_a_save_leaves_the_step_before_to_go_on_from(
    tmp_path, run, assets, experiment, state, no_room_for_files_beyond
):
    shutil.copytree(run, tmp_path / "run")
    later = state.replace(step=state.step + 100)
    with RunCheckpoints(tmp_path / "run", assets, experiment, "run") as checkpoints:
        with no_room_for_files_beyond(50_000), pytest.raises(SaveFailed) as error:
            saved_to_the_end(checkpoints, later)
    assert error.value.message.startswith(f"A step could not be saved in {tmp_path}/run (")
    assert error.value.message.endswith("). Step 700 is whole. Make room on the disk, then go on with --resume.")
    back = restored(tmp_path / "run", assets, experiment, jax.eval_shape(lambda: state))
    assert int(back.step) == 701


def test_a_save_may_take_six_hours(tmp_path, assets, experiment):
    """orbax says nowhere in public how long it waits; its own 20 minutes are too few for a full state."""
    with RunCheckpoints(tmp_path, assets, experiment, "run") as checkpoints:
        assert checkpoints._manager._checkpointer._async_manager._timeout_secs == 6 * 60 * 60


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "Make room on the disk"), (errno.EIO, "Mend that"), (errno.EROFS, "Mend that")],
)
def test_room_is_asked_for_where_room_is_lacking(tmp_path, assets, experiment, state, monkeypatch, number, remedy):
    def fail(folder, assets):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoints_module, "write_assets", fail)
    with RunCheckpoints(tmp_path, assets, experiment, "run") as checkpoints:
        with pytest.raises(SaveFailed) as error:
            saved_to_the_end(checkpoints, state)
    assert error.value.message == (
        f"A step could not be saved in {tmp_path} ({os.strerror(number)}). No step is saved yet. {remedy}, then start "
        "anew with --overwrite."
    )


def test_the_best_step_and_every_so_many_stay_beside_the_latest(tmp_path, assets, experiment, state):
    params = {"w": jnp.ones(2)}
    opt_state = optimizer(experiment.optimizer, experiment.decay_steps).init(params)
    small = TrainState(jnp.int32(0), params, opt_state, None)
    losses = {1: 0.5, 2: 0.1, 3: 0.4}
    lines = [json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in losses.items()]
    (tmp_path / "validation.jsonl").write_text("".join(lines))
    kept = dataclasses.replace(experiment, save_every=1, keep_every=5)
    with RunCheckpoints(tmp_path, assets, kept, "run", keep=1) as checkpoints:
        for step in range(8):
            checkpoints.save(small.replace(step=jnp.int32(step + 1)))
        checkpoints.wait()
    assert sorted(int(child.name) for child in tmp_path.iterdir() if child.is_dir()) == [2, 4, 7]
