"""Following a run: newer steps are served in place, unusable ones change nothing, and nothing is compiled anew."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from websockets.sync.client import connect

from policy_protocol.codec import pack, unpack
from policy_protocol.spec import PolicySpec
from policy_server.engine.compile_counter import CompileCounter
from policy_server.follow import Follower, first_step
from sim_client import PolicyClient
from training.pi05.checkpoint.step_directory import SPEC_FILE, TOKENIZER_FILE, CheckpointInvalid
from training.pi05.checkpoint.weights import as_saved, read_params
from training.pi05.load import load_policy, reload_policy
from training.pi05.model.params import unflatten

from .conftest import CHECKPOINT, LIBERO, TOKENIZER, ServerProcess


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Tiny models spend their time in the compiler: it may leave out what makes large ones fast."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def write_step(run, number, change=lambda flat: flat, spec=LIBERO):
    """A complete step of the run, with changed weights."""
    draft = run / f"{number}.unfinished"
    (draft / "assets").mkdir(parents=True)
    shutil.copytree(CHECKPOINT / "assets", draft / "assets", dirs_exist_ok=True)
    shutil.copy(TOKENIZER, draft / "assets" / TOKENIZER_FILE)
    checkpoint = dataclasses.replace(spec.policy.checkpoint, step=number)
    spec = dataclasses.replace(spec, policy=dataclasses.replace(spec.policy, checkpoint=checkpoint))
    (draft / "assets" / SPEC_FILE).write_text(spec.to_json())
    flat = change(read_params(CHECKPOINT))
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save((draft / "params").absolute(), as_saved(unflatten(flat)))
    draft.rename(run / str(number))
    return run / str(number)


def scaled(flat):
    return {path: leaf * 1.5 if "action_out_proj" in path else leaf for path, leaf in flat.items()}


def broken(flat):
    return {path: np.full_like(leaf, np.nan) if "action_in_proj/bias" in path else leaf for path, leaf in flat.items()}


def without_a_bias(flat):
    return {path: leaf for path, leaf in flat.items() if path != "action_out_proj/bias"}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Step 9 of a run, once for all tests."""
    return write_step(tmp_path_factory.mktemp("first"), 9)


@pytest.fixture(scope="module")
def policy(first):
    """One policy for all tests, compiled once."""
    loaded = load_policy(first)
    loaded.compile(1, loaded.prompt_lengths[-1])
    return loaded


@pytest.fixture
def run(tmp_path, first):
    shutil.copytree(first, tmp_path / "run" / "9")
    return tmp_path / "run"


@pytest.fixture
def served(run, policy):
    """The policy as it serves the run's first step, and its follower."""
    reload_policy(policy, first_step(run))
    return policy, Follower(policy, run, lambda step: reload_policy(policy, step))


def actions(policy, observation):
    return policy(observation, noise_seed=0).actions


def test_a_newer_step_is_served_in_place(run, served, observation):
    policy, follower = served
    before = actions(policy, observation)
    write_step(run, 19, scaled)
    asyncio.run(follower.look())
    assert policy.spec.policy.checkpoint.step == 19
    assert np.abs(actions(policy, observation) - before).max() > 1e-3
    fresh = actions(load_policy(run / "19"), observation)
    np.testing.assert_array_equal(actions(policy, observation), fresh)


def test_after_a_reload_no_program_is_compiled(run, served, observation):
    policy, follower = served
    actions(policy, observation)
    write_step(run, 19, scaled)
    asyncio.run(follower.look())  # cutting the new weights into layers may compile; answering with them must not
    counter = CompileCounter()
    actions(policy, observation)
    assert counter.count == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken, "hold NaN or infinity in action_in_proj/bias. Use another step."),
        (without_a_bias, "1 missing: action_out_proj/bias."),
    ],
)
def test_a_step_that_cannot_be_used_changes_nothing(run, served, observation, caplog, change, message):
    policy, follower = served
    before = actions(policy, observation)
    write_step(run, 19, change)
    with caplog.at_level(logging.WARNING, logger="policy_server"):
        logging.getLogger("policy_server").propagate = True
        asyncio.run(follower.look())
    np.testing.assert_array_equal(actions(policy, observation), before)
    assert policy.spec.policy.checkpoint.step == 9
    assert "step 19 is not served" in caplog.text
    assert message in caplog.text


def test_a_step_with_other_norm_stats_is_refused(run, served):
    policy, _ = served
    other = dataclasses.replace(LIBERO, policy=dataclasses.replace(LIBERO.policy, norm_stats_hash="another"))
    with pytest.raises(CheckpointInvalid) as error:
        reload_policy(policy, write_step(run, 29, spec=other))
    assert error.value.message.endswith("has other norm stats than the checkpoint that is served; start a new server.")


def test_a_step_whose_spec_says_otherwise_is_refused(run, served):
    policy, _ = served
    other = dataclasses.replace(LIBERO, policy=dataclasses.replace(LIBERO.policy, denoising_steps=3))
    message = r"another policy than the one that is served: its spec differs in policy\. Start a new server\.$"
    with pytest.raises(CheckpointInvalid, match=message):
        reload_policy(policy, write_step(run, 29, spec=other))


def test_whatever_goes_wrong_the_next_step_gets_its_chance(run, policy, caplog):
    reload_policy(policy, first_step(run))
    loaded = []

    def reload(step):
        if step.name == "19":
            raise RuntimeError("out of memory")
        loaded.append(step.name)

    follower = Follower(policy, run, reload)
    write_step(run, 19)
    logging.getLogger("policy_server").propagate = True
    asyncio.run(follower.look())
    assert "step 9 is still served" in caplog.text
    assert "out of memory" in caplog.text
    asyncio.run(follower.look())
    assert not loaded
    (run / "19").rename(run / "29")
    asyncio.run(follower.look())
    assert loaded == ["29"]


def test_following_waits_for_the_first_step_and_says_when_there_is_no_run(tmp_path):
    with pytest.raises(CheckpointInvalid, match="There is no run at .* to follow"):
        first_step(tmp_path / "nowhere")
    with pytest.raises(CheckpointInvalid, match="has no complete step yet"):
        first_step(tmp_path, every_s=0.01, wait_s=0.05)


def test_the_spec_of_a_step_names_it(run):
    assert PolicySpec.read(run / "9/assets" / SPEC_FILE).policy.checkpoint.step == 9


def test_a_server_that_follows_a_run_announces_its_newest_step_and_serves_it(run, environment, observation):
    arguments = ["--follow", run, "--batch-sizes", "1", "--port", 0, "--grpc-port", 0, "--dtype", "float32"]
    server = ServerProcess(arguments, environment)
    try:
        server.wait_ready()
        before = ask(server.url, observation)
        write_step(run, 19, scaled)
        deadline = time.monotonic() + 60
        while PolicySpec.from_json(server.page("/spec")[1]).policy.checkpoint.step != 19:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.5)
        after = ask(server.url, observation)
        assert server.stop() == 0
    finally:
        server.stop()
    assert (before["checkpoint"], after["checkpoint"]) == ("pi05_libero/tiny/9", "pi05_libero/tiny/19")
    assert np.abs(after["actions"] - before["actions"]).max() > 1e-3
    assert "serving step 19 now" in server.log


def test_a_server_that_follows_on_request_goes_back_and_forth_between_steps(run, environment, observation):
    """The same actions again: a step that is loaded for the second time is the step that it was."""
    write_step(run, 19, scaled)
    arguments = ["--follow", run, "--follow-on-request", "--batch-sizes", "1", "--port", 0, "--dtype", "float32"]
    server = ServerProcess(arguments, environment)
    try:
        with PolicyClient(server.wait_ready().url) as client:
            actions = {}
            for step in (19, 9, 19, 9):
                assert client.load_step(step).step == step
                chunk = client.infer(observation, noise_seed=0)
                assert chunk.checkpoint == f"pi05_libero/tiny/{step}"
                np.testing.assert_array_equal(chunk.actions, actions.setdefault(step, chunk.actions))
        assert np.abs(actions[9] - actions[19]).max() > 1e-3
    finally:
        server.stop()


def ask(url, observation):
    with connect(url, max_size=None, compression=None) as connection:
        connection.recv(timeout=30)
        connection.send(pack({"id": 1, "observation": observation, "noise_seed": 0}))
        return unpack(connection.recv(timeout=60)).value
