"""`eval-stack` on a real engine: two checkpoints on two tasks, and one report that compares them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from stacks import run, wait_for

EVAL_STACK = Path(sys.executable).with_name("eval-stack")
LABEL = "label=chunkwire.stack"


def on_the_engine() -> set[str]:
    containers = run("docker", "ps", "--all", "--quiet", "--filter", LABEL).stdout.split()
    return {*containers, *run("docker", "network", "ls", "--quiet", "--filter", LABEL).stdout.split()}


def matrix(images, checkpoints, out: Path, episodes: int) -> list[object]:
    first, second = checkpoints
    command = [EVAL_STACK, "--checkpoint", f"first={first}", "--checkpoint", f"second={second}"]
    command += ["--env", "StackCube-v1,PushCube-v1", "--episodes", episodes, "--out", out, "--no-build"]
    command += ["--server-image", images.server, "--sim-image", images.sim]
    # a second task is not worth a training
    return [*command, "--", "--workers", "1", "--allow-mismatch", "simulation.env_ids"]


def test_two_checkpoints_on_two_tasks_are_compared_in_one_report(images, checkpoints, workplace):
    before, out = on_the_engine(), workplace / "matrix"
    run(*matrix(images, checkpoints, out, episodes=1))
    for checkpoint in ("first", "second"):
        for task in ("StackCube-v1", "PushCube-v1"):
            (record,) = (out / checkpoint / task / "episodes.jsonl").read_text().splitlines()
            assert json.loads(record)["outcome"] in {"success", "timeout"}
    report = (out / "report.md").read_text()
    for name in ("first", "second", "StackCube-v1", "PushCube-v1"):
        assert name in report
    assert "paired" in (out / "comparison.md").read_text()
    assert on_the_engine() == before


def test_ctrl_c_leaves_nothing_on_the_engine_and_the_same_command_goes_on(images, checkpoints, workplace):
    before, out = on_the_engine(), workplace / "stopped"
    command = [str(word) for word in matrix(images, checkpoints, out, episodes=2)]
    stopped = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    records = out / "first/StackCube-v1/episodes.jsonl"
    wait_for(lambda: records.exists() and records.read_text(), 600, stopped)
    stopped.send_signal(signal.SIGINT)
    output, _ = stopped.communicate(timeout=180)
    assert stopped.returncode == 130, output
    assert on_the_engine() == before
    kept = records.read_text().splitlines()
    run(*command)
    assert records.read_text().splitlines()[: len(kept)] == kept
    assert len(list(out.rglob("episodes.jsonl"))) == 4
    assert on_the_engine() == before
