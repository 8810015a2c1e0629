"""The whole path on a small scale: real demonstrations, a real dataset, training, a server, an evaluation.

Runs in the model environment and starts the simulator environment's commands as a user does.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from both_environments import EXPERIMENT, ROOT, SIMULATOR, evaluate, make_policy, records, run, serving

from policy_protocol.spec import PolicySpec
from training.pi05 import load_policy

pytestmark = pytest.mark.timeout(1_200)  # whichever comes first waits for the policy


def test_a_recipe_leaves_a_small_policy_and_its_results(policy, checkpoint, workspace):
    spec = PolicySpec.read(policy / "assets/policy_spec.json")
    trained = PolicySpec.read(checkpoint / "assets/policy_spec.json").policy.checkpoint
    origin = spec.policy.checkpoint
    assert (origin.experiment, origin.run, origin.step) == (EXPERIMENT, f"{trained.run}-bf16", 3)
    assert [(part.source, part.start, part.stop) for part in spec.observation.state.fields] == [
        *(("extra/tcp_pose", 0, 3), ("agent/qpos", 7, 8))
    ]
    assert sum(path.stat().st_size for path in policy.rglob("*") if path.is_file()) < 12e6
    results = workspace / "docs/results/pushcube"
    assert sorted(path.name for path in results.iterdir()) == ["episodes.jsonl", "report.md", "run.json"]
    assert [record["seed"] for record in records(results)] == [0]
    assert json.loads((results / "run.json").read_text())["checkpoint"] == str(origin)
    assert sorted(path.name for path in policy.parent.iterdir()) == ["pushcube"]


def test_a_recipe_that_was_followed_to_its_end_begins_no_stage_again(policy, workspace, environment):
    before = {path.relative_to(policy): path.read_bytes() for path in policy.rglob("*") if path.is_file()}
    shutil.rmtree(policy)  # as where another run's policy was put in its place
    output = make_policy(workspace, environment)
    assert "== " not in output
    assert {path.relative_to(policy): path.read_bytes() for path in policy.rglob("*") if path.is_file()} == before
    assert output.endswith("The policy is checkpoints/pushcube, its results are in docs/results/pushcube.\n")


@pytest.mark.parametrize(
    ("asked", "served", "trains"),
    [
        (("ENV=PushCube-v1",), "checkpoints/pushcube", False),
        (("ENV=PullCube-v1",), "runs/pi05_maniskill_pullcube_small/eval-20-demos-400-steps/399", True),
        (("ENV=PushCube-v1", "STEPS=7"), "runs/pi05_maniskill_pushcube_small/eval-20-demos-7-steps/6", True),
        (("ENV=PushCube-v1", "CHECKPOINT=a/9"), "a/9", False),
    ],
)
def test_an_evaluation_takes_the_policy_that_is_asked_for_else_the_shipped_one_else_trains(
    policy, workspace, environment, asked, served, trains
):
    script = run("make", "--dry-run", "eval", *asked, cwd=workspace, env=environment)
    assert f"serve --checkpoint '{served}'" in script
    assert ("== training" in script) == trains


@pytest.fixture(scope="module")
def server(checkpoint, environment):
    with serving("--checkpoint", checkpoint, "--batch-sizes", "1", environment=environment) as address:
        yield address


def test_the_checkpoint_carries_the_facts_of_its_demonstrations(checkpoint, demonstrations):
    spec = PolicySpec.read(checkpoint / "assets/policy_spec.json")
    facts = json.loads(demonstrations.with_suffix(".json").read_text())["simulation"]
    assert spec.simulation.env_ids == ("PushCube-v1",)
    assert spec.simulation.control_freq == facts["control_freq"] == 20
    assert spec.simulation.demonstration_seeds == (1_000_000, 1_000_001)
    assert spec.simulation.frame_stride == 4
    assert spec.action.control_mode == "pd_ee_delta_pose"
    assert [camera.simulator_camera for camera in spec.observation.cameras] == ["base_camera", "hand_camera"]
    assert {camera.height for camera in spec.observation.cameras} == {128}
    assert spec.observation.prompt.trained == (facts["prompt"],)
    assert (spec.policy.checkpoint.experiment, spec.policy.checkpoint.step) == (EXPERIMENT, 3)


def test_the_checkpoint_is_a_policy_in_this_process_too(checkpoint):
    policy = load_policy(checkpoint)
    spec = policy.spec.observation
    images = {camera.key: np.zeros((128, 128, 3), np.uint8) for camera in spec.cameras}
    observation = {**images, spec.state.key: np.array(spec.state.mean), "prompt": spec.prompt.trained[0]}
    assert policy(observation, noise_seed=1).actions.shape == (16, 7)


def test_an_evaluation_counts_every_episode_and_a_second_run_repeats_none(server, workspace, environment):
    out = workspace / "two-episodes"
    output = evaluate(server, out, "--episodes", 2, env=environment)
    assert re.search(r"success_once [012]/2 = ", output)
    assert [record["seed"] for record in records(out)] == [0, 1]
    assert all(record["outcome"] in ("success", "timeout") for record in records(out))
    before = (out / "episodes.jsonl").read_bytes()
    evaluate(server, out, "--episodes", 2, env=environment)
    assert (out / "episodes.jsonl").read_bytes() == before
    assert "Wilson" in (out / "report.md").read_text()


def test_a_client_killed_in_an_episode_goes_on_with_that_episode(server, workspace, environment):
    out = workspace / "killed"
    command = [SIMULATOR / "sim-client", "--env", "PushCube-v1", "--server", server, "--out", out, "--episodes", "4"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (out / "episodes.jsonl").exists() or len(records(out)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = records(out)[:2]
    output = evaluate(server, out, "--episodes", 4, env=environment)
    assert records(out)[:2] == finished
    assert [record["seed"] for record in records(out)] == [0, 1, 2, 3]
    assert re.search(r"success_once [0-4]/4 = ", output)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(("--control-freq", 10), "simulation.control_freq"), (("--env", "PullCube-v1"), "simulation.env_ids")],
)
def test_another_simulation_than_the_demonstrations_is_refused(server, workspace, environment, arguments, field):
    output = evaluate(server, workspace / "refused", "--episodes", 1, *arguments, expect=1, env=environment)
    assert field in output
    assert "Traceback" not in output


def test_evaluating_on_a_demonstrations_seed_is_refused(server, workspace, environment):
    output = evaluate(server, workspace / "seen", "--episodes", 1, "--seed", 1_000_000, expect=1, env=environment)
    assert "simulation.demonstration_seeds" in output


def test_a_sweep_measures_every_step_that_one_server_loads_on_request(checkpoint, workspace, environment):
    """On the fake environment: what a server answers while its weights change does not depend on the simulator."""
    training, out = checkpoint.parent, workspace / "sweep"
    client = (SIMULATOR / "python", ROOT / "tests/sim_client/sim_client_on_fake_environment.py", "sweep", training)
    flags = ("--env", "PushCube-v1", "--episodes", 2, "--workers", 0, "--out", out, "--json")
    with serving("--follow", training, "--follow-on-request", "--batch-sizes", 1, environment=environment) as server:
        done = run(*client, *flags, "--server", server, env=environment)
    result = json.loads(done[done.index("{") : done.rindex("}") + 1])
    assert [(one["step"], one["checkpoint"]) for one in result["steps"]] == [
        (step, f"{EXPERIMENT}/{training.name}/{step}") for step in (1, 3)
    ]
    assert all(one["training_loss"] > 0 and one["outcomes"]["error"] == 0 for one in result["steps"])
    assert [[record["seed"] for record in records(out / step)] for step in ("1", "3")] == [[0, 1]] * 2
    hashes = [{record["action_hash"] for record in records(out / step)} for step in ("1", "3")]
    assert not hashes[0] & hashes[1]
