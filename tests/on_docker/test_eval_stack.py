"""`eval-stack` on a real engine: two checkpoints on two tasks, and one report that compares them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stacks import run

EVAL_STACK = Path(sys.executable).with_name("eval-stack")
LABEL = "label=chunkwire.stack"


def test_two_checkpoints_on_two_tasks_are_compared_in_one_report(images, checkpoints, workplace):
    first, second = checkpoints
    out = workplace / "matrix"
    command = [EVAL_STACK, "--checkpoint", f"first={first}", "--checkpoint", f"second={second}"]
    command += ["--env", "StackCube-v1,PushCube-v1", "--episodes", "1", "--out", out, "--no-build"]
    command += ["--server-image", images.server, "--sim-image", images.sim, "--"]
    command += ["--workers", "1", "--allow-mismatch", "simulation.env_ids"]  # no second task is worth a training here
    run(*command)
    for checkpoint in ("first", "second"):
        for task in ("StackCube-v1", "PushCube-v1"):
            (record,) = (out / checkpoint / task / "episodes.jsonl").read_text().splitlines()
            assert json.loads(record)["outcome"] in {"success", "timeout"}
    report = (out / "report.md").read_text()
    for name in ("first", "second", "StackCube-v1", "PushCube-v1"):
        assert name in report
    assert "paired" in (out / "comparison.md").read_text()
    left = run("docker", "ps", "--all", "--quiet", "--filter", LABEL).stdout
    left += run("docker", "network", "ls", "--quiet", "--filter", LABEL).stdout
    assert left == ""
