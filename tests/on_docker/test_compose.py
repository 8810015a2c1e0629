"""The eval stack under every Compose that is installed: whole runs, and what may happen to them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from stacks import ROOT, composes, run, wait_for

COMPOSES = pytest.mark.parametrize("compose", composes(), ids=" ".join)
ONE = composes()[0]


def records(results: Path) -> list[dict]:
    """Every line of the only run's episodes."""
    (file,) = results.rglob("episodes.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def containers(stack, service: str) -> list[str]:
    project = stack.environment["COMPOSE_PROJECT_NAME"]
    flags = (f"label=com.docker.compose.project={project}", f"label=com.docker.compose.service={service}")
    listed = run("docker", "ps", "--all", "--quiet", *(word for flag in flags for word in ("--filter", flag)))
    return listed.stdout.split()


@COMPOSES
def test_one_command_measures_the_policy_and_leaves_the_report_to_the_folders_owner(stack, compose):
    one = stack(compose)
    os.chown(one.results, 12345, 23456)
    code, output = one.run("up", "--exit-code-from", "sim")
    assert code == 0, output
    assert [record["seed"] for record in records(one.results)] == [0, 1, 2, 3]
    assert {record["outcome"] for record in records(one.results)} <= {"success", "failure", "timeout"}
    (report,) = one.results.rglob("report.html")
    assert "StackCube-v1" in report.read_text()
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in one.results.rglob("*")}
    assert owners == {(12345, 23456)}
    assert "success_once" in output
    running = run("docker", "ps", "--quiet", "--filter", f"name={one.environment['COMPOSE_PROJECT_NAME']}")
    assert running.stdout == ""


@COMPOSES
def test_scaled_clients_run_each_seed_once(stack, compose):
    one = stack(compose, EPISODES=4)
    # 1.29 cannot tell the exit code of a service of several containers: it fails with an error of its own
    ends = ("--exit-code-from", "sim") if compose == ["docker", "compose"] else ("--abort-on-container-exit",)
    code, output = one.run("up", "--scale", "sim=2", *ends)
    assert code == 0, output
    assert sorted(record["seed"] for record in records(one.results)) == [0, 1, 2, 3]


def test_a_server_that_is_killed_comes_back_and_no_episode_is_lost(stack):
    one = stack(ONE, EPISODES=3)
    process = one.start("up", "--exit-code-from", "sim")
    wait_for(lambda: list(one.results.rglob("episodes.jsonl")) and records(one.results), 600, process)
    (server,) = containers(one, "server")
    (serving,) = [
        line.split() for line in run("docker", "top", server, "-eo", "pid,comm").stdout.splitlines() if "serve" in line
    ]
    os.kill(int(serving[0]), 9)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert "serve was killed (code 137) and is started again" in output
    assert sorted(record["seed"] for record in records(one.results) if record["outcome"] != "error") == [0, 1, 2]


def test_a_server_container_that_is_killed_ends_the_stack_and_the_same_command_goes_on(stack):
    one = stack(ONE, EPISODES=3)
    process = one.start("up", "--exit-code-from", "sim")
    wait_for(lambda: list(one.results.rglob("episodes.jsonl")) and records(one.results), 600, process)
    (server,) = containers(one, "server")
    run("docker", "kill", server)
    process.communicate(timeout=300)
    assert process.returncode != 0
    before = records(one.results)
    code, output = one.run("up", "--exit-code-from", "sim")
    assert code == 0, output
    after = records(one.results)
    assert after[: len(before)] == before
    assert sorted(record["seed"] for record in after if record["outcome"] != "error") == [0, 1, 2]


def test_a_client_that_fails_gives_the_stack_its_exit_code(stack):
    code, output = stack(ONE, ENV_ID="StackCubes-v1").run("up", "--exit-code-from", "sim")
    assert code == 1
    assert "Did you mean 'StackCube-v1'?" in output


@COMPOSES
def test_a_checkpoint_that_is_not_there_is_named_before_anything_starts(stack, compose):
    one = stack(compose, CHECKPOINT="/no/such/step")
    code, output = one.run("up", "--exit-code-from", "sim")
    assert code != 0
    assert "/no/such/step" in output
    assert not any(state_of(name) == "running" for name in containers(one, "server"))
    assert containers(one, "sim") == [] or all(state_of(name) == "created" for name in containers(one, "sim"))


@COMPOSES
def test_a_server_that_cannot_serve_ends_the_stack_with_its_reason(stack, compose, tmp_path):
    empty = tmp_path / "29999"
    empty.mkdir()
    for place in (empty, *empty.parents[:3]):
        place.chmod(0o755)
    one = stack(compose, CHECKPOINT=empty)
    code, output = one.run("up", "--exit-code-from", "sim")
    assert code != 0
    if compose != ["docker", "compose"]:  # 1.29 says only that it is unhealthy
        output = one.run("logs", "server")[1]
    assert "/checkpoint is not a checkpoint step" in output
    assert not list(one.results.rglob("episodes.jsonl"))


def test_results_that_cannot_be_written_are_named(stack):
    one = stack(ONE)
    os.chown(one.results, 12345, 23456)
    one.results.chmod(0o555)
    code, output = one.run("up", "--exit-code-from", "sim")
    assert code == 1
    assert "--out results/" in output
    assert "cannot be used: Permission denied" in output


def test_without_a_flag_the_server_ends_itself_after_its_clients(stack):
    one = stack(ONE, EPISODES=1, IDLE_MINUTES=1)
    code, output = one.run("up")
    assert code == 0, output
    assert "nobody asked anything for 60 s" in output
    assert len(records(one.results)) == 1
    assert all(state_of(name) == "exited" for name in (*containers(one, "server"), *containers(one, "sim")))


def test_the_suite_measures_every_task(stack):
    one = stack(
        ONE,
        COMPOSE_PROFILES="suite",
        EPISODES=1,
        SIM_ARGS="--workers 1 --max-episode-steps 4 --allow-mismatch simulation.env_ids "
        "--allow-mismatch simulation.max_episode_steps",
    )
    code, output = one.run("up", "--exit-code-from", "suite", seconds=1800)
    assert code == 0, output
    assert len(list(one.results.rglob("episodes.jsonl"))) == 6
    assert list(one.results.rglob("suite.html"))


@COMPOSES
def test_training_runs_with_its_folders(stack, compose, workplace):
    one = stack(
        compose,
        COMPOSE_PROFILES="train",
        DATASETS=workplace / "datasets",
        RUNS=workplace / "runs",
        TRAIN="pi05_maniskill_stackcube_small --dataset /datasets/stack --exp-name composed --set steps=1 "
        "--set batch_size=2 --set optimizer.warmup_steps=0 --overwrite",
    )
    code, output = one.run("up", "--exit-code-from", "train")
    assert code == 0, output
    saved = workplace / "runs/pi05_maniskill_stackcube_small/composed/0/params"
    assert saved.stat().st_uid == (workplace / "runs").stat().st_uid


def test_a_port_that_is_taken_is_said(stack):
    one = stack(ONE)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(one.environment["SERVER_PORT"])))
        taken.listen()
        code, output = one.run("up", "--exit-code-from", "sim")
    assert code != 0
    assert "address already in use" in output


def test_ctrl_c_stops_everything_and_keeps_the_records(stack):
    one = stack(ONE)
    process = one.start("up", "--exit-code-from", "sim")
    wait_for(lambda: list(one.results.rglob("episodes.jsonl")) and records(one.results), 600, process)
    process.send_signal(2)
    process.communicate(timeout=120)
    assert all(state_of(name) == "exited" for name in (*containers(one, "server"), *containers(one, "sim")))
    before = records(one.results)
    code, output = one.run("up", "--exit-code-from", "sim")
    assert code == 0, output
    after = records(one.results)
    assert after[: len(before)] == before
    assert sorted(record["seed"] for record in after) == [0, 1, 2, 3]


def state_of(container: str) -> str:
    return run("docker", "inspect", "--format", "{{.State.Status}}", container).stdout.strip()


def test_the_files_are_what_the_installed_compose_reads():
    for compose in composes():
        ended = subprocess.run([*compose, "config", "--quiet"], cwd=ROOT / "docker", capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
