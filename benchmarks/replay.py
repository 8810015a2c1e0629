"""Expert replays: demonstrations served by `serve --policy replay:…` through the whole pipe, which must not bend them.

    python benchmarks/replay.py [--tasks StackCube-v1,PushCube-v1] [--episodes 20]

For each task: the motion planner's demonstrations are collected, converted to a dataset, served, and run by
`sim-client --on-demonstrations`. Goal: at least 95% succeed. Success forgives small errors, so the actions themselves
are looked at too: every episode ends with its first success (`--settle 0`), and the client's hash of what it executed
is compared with the same steps of the recording.

Runs in the model's environment; `--simulator` names the other one's programs. Everything is made in a temporary folder.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from server_processes import free_port, running, serve_command

from policy_server.policies.recorded_files import read_recording

_ROOT = Path(__file__).parents[1]
_TASKS = "StackCube-v1,PickCube-v1,PushCube-v1,PullCube-v1"
_ONCE = 1000
"""Frame stride: a replay looks at no image, so only the first is rendered."""
_LONGEST_S = 3600.0
console = Console(width=120, highlight=False)


@dataclass(frozen=True)
class Replay:
    """What became of one task's demonstrations."""

    success: str
    """k/n with its interval."""
    unbent: int
    """Episodes whose executed actions are the recorded ones, bit for bit."""
    episodes: int
    steps: float
    """Median."""
    seconds: float


def replay(task: str, episodes: int, folder: Path, simulator: Path) -> Replay:
    """Collect, convert, serve, run."""
    begun = time.perf_counter()
    recording, dataset, results = folder / f"{task}.h5", folder / task, folder / f"{task}-results"
    looks = ("--camera-size", 64, "--frame-stride", _ONCE, "--workers", 1)
    _run(simulator / "sim-client", "collect", "--env", task, "--episodes", episodes, "--out", recording, *looks)
    _run(Path(sys.executable).with_name("train"), "convert", recording, dataset, "--overwrite")
    port = free_port()
    with running(serve_command(port, "--policy", f"replay:{dataset}"), port, ready=True):
        which = ("--server", f"ws://127.0.0.1:{port}", "--on-demonstrations", "--episodes", episodes)
        how = ("--settle", 0, "--workers", 1, "--out", results, "--overwrite", "--json")
        found: dict[str, Any] = json.loads(_run(simulator / "sim-client", "--env", task, *which, *how))
    return Replay(
        success=found["success_once"]["text"],
        unbent=_unbent(recording, results),
        episodes=episodes,
        steps=found["steps"]["q50"],
        seconds=time.perf_counter() - begun,
    )


def _unbent(recording: Path, results: Path) -> int:
    """Episodes of which the recording's first actions, as many as were executed, have the client's hash."""
    actions = read_recording(recording).actions
    records = [json.loads(line) for line in (results / "episodes.jsonl").read_text().splitlines()]
    return sum(_hash(actions[each["seed"]][: each["steps"]]) == each["action_hash"] for each in records)


def _hash(actions: np.ndarray) -> str:
    return hashlib.blake2b(np.asarray(actions, np.float32).tobytes(), digest_size=8).hexdigest()


def _run(command: Path, *arguments: object) -> str:
    """Standard output of a command; its errors only when it fails."""
    console.print(f"[dim]{time.strftime('%X')} {command.name} {' '.join(map(str, arguments))}[/dim]", soft_wrap=True)
    words = [str(command), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def main(
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas.")] = _TASKS,
    episodes: Annotated[int, typer.Option(help="Demonstrations of each.")] = 20,
    simulator: Annotated[Path, typer.Option(help="Folder of the simulator environment's `sim-client`.")] = (
        _ROOT / ".venv-sim/bin"
    ),
) -> None:
    """Print one row for each task."""
    table = Table("task", "succeeded (goal: 95%)", "actions as recorded", "steps", "minutes", title="expert replays")
    try:
        with tempfile.TemporaryDirectory() as folder:
            for task in tasks.split(","):
                done = replay(task, episodes, Path(folder), simulator)
                unbent = f"{done.unbent}/{done.episodes}"
                table.add_row(task, done.success, unbent, f"{done.steps:.0f}", f"{done.seconds / 60:.1f}")
    finally:  # of a task that fails, the ones before it are worth their minutes
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
