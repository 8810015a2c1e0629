"""Commands of the model's environment, in which these tests run, and of the simulator's, started as a user does."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPERIMENT = "pi05_maniskill_pushcube_small"
MODEL, SIMULATOR = Path(sys.executable).parent, ROOT / ".venv-sim/bin"


def run(command, *arguments, expect=0, **options):
    """Run a command to its end; returns its output, both streams."""
    done = subprocess.run(
        [command, *map(str, arguments)], capture_output=True, text=True, timeout=900, check=False, **options
    )
    output = done.stdout + done.stderr
    assert done.returncode == expect, output
    return output


@contextlib.contextmanager
def serving(*arguments, environment) -> Iterator[str]:
    """`serve` on a free port; gives its address, and expects that it ends well."""
    process = subprocess.Popen(
        [MODEL / "serve", *map(str, arguments), "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment
    )
    seen = []
    for line in process.stderr:
        seen.append(line)
        if found := re.search(r"ready on (ws://\S+)", line):
            break
    else:
        pytest.fail("".join(seen))
    try:
        yield found[1]
    finally:
        process.terminate()
        assert process.wait(30) == 0


def make_policy(workspace, environment):
    """`make policy` of PushCube-v1 with four updates on two demonstrations, and one episode."""
    small = ("--set batch_size=4", "--set save_every=2", "--set optimizer.warmup_steps=1", "--set held_out=0")
    scale = ("TASK=pushcube", "DEMOS=2", "STEPS=4", "EPISODES=1", "WORKERS=2", f"TRAIN={' '.join(small)}")
    commands = (f"MODEL={MODEL}", f"SIM={SIMULATOR}")
    return run("make", "policy", *scale, *commands, cwd=workspace, env=environment)


def evaluate(server, out, *arguments, **options):
    """`sim-client` on PushCube-v1."""
    base = ("--env", "PushCube-v1", "--server", server, "--out", out)
    return run(SIMULATOR / "sim-client", *base, *arguments, **options)


def records(out):
    """The episodes of a results directory."""
    return [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
