"""Goal 12: evaluating StackCube-v1 on two CPU cores, at least 5 times what a client gets that renders every step.

    python benchmarks/evaluation.py [--episodes 2] [--rounds 2] [--peer-python PYTHON]

Every side runs the same actions from the same seeds against a policy of a fixed cost:

    (a) renders every step and asks in every step
    (b) renders every step and runs chunks
    (c) `sim-client` with 1 worker and with 2
    (d) vla-eval 0.8.0, when --peer-python names a Python that has it and ManiSkill

The sides take turns: a b c c d a b c c d. The clock runs from the first episode's begin to the last one's end, without
loading the simulator. `sim-client` runs more episodes, for its are over sooner. Nobody's robot succeeds: it only sways,
so that every episode has the same length. The simulator's idle share is that of the episodes' time in which it
neither simulates nor renders; the goal is at most 20% of ours.

Runs in the model's environment; `--simulator` names the other one's programs.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from evaluation_burst import Burst, Side, burst
from evaluation_task import ENV_ID, actions_of, hash_of
from rich.console import Console
from rich.table import Table
from server_processes import free_port, running

_HERE = Path(__file__).parent
_MORE = 4
"""How many times the episodes `sim-client` runs."""
console = Console(width=150, highlight=False)


@dataclass(frozen=True)
class Setting:
    """What the command line says."""

    episodes: int
    steps: int
    horizon: int
    camera_size: int
    rounds: int
    base_ms: float
    row_ms: float
    simulator: Path
    peer_python: str | None

    @property
    def most_episodes(self) -> int:
        """Seeds that the policy knows."""
        return _MORE * self.episodes


def sides(setting: Setting, url: str, peer_url: str | None) -> list[Side]:
    """Everybody who takes part."""
    script = (setting.simulator / "python", _HERE / "evaluation_plain_client.py", url, "LINES")
    size = ("--steps", setting.steps, "--camera-size", setting.camera_size, "--episodes", setting.episodes)
    ours = (setting.simulator / "sim-client", "--env", ENV_ID, "--server", url, "--out", "OUT", "--on-demonstrations")
    rules = ("--episodes", setting.most_episodes, "--execution-horizon", setting.horizon)
    limit = ("--max-episode-steps", setting.steps)
    entered = [
        Side("(a) render and ask every step", (*script, *size, "--horizon", 1), setting.episodes),
        Side("(b) render every step, chunks", (*script, *size, "--horizon", setting.horizon), setting.episodes),
    ]
    for workers in (1, 2):
        command = (*ours, *rules, *limit, "--workers", workers)
        entered.append(Side(f"(c) sim-client --workers {workers}", command, setting.most_episodes))
    if peer_url is not None:
        words = (setting.peer_python, _HERE / "evaluation_vla_eval.py", "run", peer_url, "LINES")
        numbers = (setting.episodes, setting.steps, setting.camera_size)
        entered.append(Side("(d) vla-eval 0.8.0", (*words, *numbers), setting.episodes))
    return entered


def compare(setting: Setting) -> dict[str, list[Burst]]:
    """The bursts of every side."""
    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in range(2)]
        cost = ("--base-ms", setting.base_ms, "--row-ms", setting.row_ms)
        seen = ("--episodes", setting.most_episodes, "--steps", setting.steps, "--camera-size", setting.camera_size)
        script = (sys.executable, _HERE / "evaluation_policy.py", ports[0])
        stack.enter_context(running([*script, *seen, *cost], ports[0], ready=True))
        peer_url = _peer(stack, setting, ports[1]) if setting.peer_python is not None else None
        entered = sides(setting, f"ws://127.0.0.1:{ports[0]}", peer_url)
        bursts: dict[str, list[Burst]] = {side.name: [] for side in entered}
        for _ in range(setting.rounds):
            for side in entered:
                console.print(f"[dim]{time.strftime('%X')} {side.name}[/dim]")
                done = burst(side)
                _require_same_actions(side, done, setting)
                bursts[side.name].append(done)
    return bursts


def _peer(stack: contextlib.ExitStack, setting: Setting, port: int) -> str:
    numbers = (port, setting.episodes, setting.steps, setting.horizon, setting.base_ms, setting.row_ms)
    command = [setting.peer_python, _HERE / "evaluation_vla_eval.py", "serve", *numbers]
    stack.enter_context(running(command, port))
    return f"ws://127.0.0.1:{port}"


def _require_same_actions(side: Side, done: Burst, setting: Setting) -> None:
    """Nobody is timed on something else."""
    for line in done.lines:
        if line["action_hash"] != hash_of(actions_of(line["seed"], setting.steps)):
            raise SystemExit(f"{side.name} ran other actions in the episode of seed {line['seed']}.")


def show(bursts: dict[str, list[Burst]]) -> None:
    """One row for each side; medians of its bursts."""
    columns = ("episodes/min", "", "simulate", "render", "wait", "other", "requests", "idle", "loading s")
    table = Table("", *columns, title="StackCube-v1 (goal: 5.00x, idle 20%); milliseconds a step")
    first = next(iter(bursts.values()))
    for name, each in bursts.items():
        table.add_row(name, *_cells(each, first))
    console.print(table)


def _cells(each: Sequence[Burst], first: Sequence[Burst]) -> list[str]:
    rate, anchor = (float(np.median([one.per_minute for one in bursts])) for bursts in (each, first))
    split = {kind: _median_ms(each, kind) for kind in ("simulate", "render", "wait", "total")}
    other = max(0.0, split["total"] - split["simulate"] - split["render"] - split["wait"])
    idle = 1 - (split["simulate"] + split["render"]) / split["total"]
    requests = sum(line["chunks"] for one in each for line in one.lines) / sum(len(one.lines) for one in each)
    return [
        f"{rate:.2f}",
        f"{rate / anchor:.2f}x",
        *(f"{split[kind]:.1f}" for kind in ("simulate", "render", "wait")),
        f"{other:.1f}",
        f"{requests:.0f}",
        f"{idle:.1%}",
        f"{np.median([one.loading_s for one in each]):.1f}",
    ]


def _median_ms(each: Sequence[Burst], kind: str) -> float:
    return float(np.median([1e3 * one.seconds(kind) / one.steps for one in each]))


def main(
    episodes: Annotated[int, typer.Option(help=f"Of a client that renders every step; ours runs {_MORE}x.")] = 2,
    max_episode_steps: Annotated[int, typer.Option(help="Length of every episode.")] = 60,
    horizon: Annotated[int, typer.Option(help="Actions of a chunk that are run.")] = 10,
    camera_size: Annotated[int, typer.Option(help="Pixels of both cameras.")] = 128,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 2,
    base_ms: Annotated[float, typer.Option(help="Fixed cost of a batch: about Pi0.5's on an H100.")] = 13.0,
    row_ms: Annotated[float, typer.Option(help="Fixed cost of each row of a batch.")] = 1.3,
    simulator: Annotated[Path, typer.Option(help="Folder of the simulator environment's programs.")] = (
        _HERE.parent / ".venv-sim/bin"
    ),
    peer_python: Annotated[str | None, typer.Option(help="Python with vla-eval 0.8.0 and ManiSkill.")] = None,
) -> None:
    """Print one table."""
    setting = Setting(
        episodes=episodes,
        steps=max_episode_steps,
        horizon=horizon,
        camera_size=camera_size,
        rounds=rounds,
        base_ms=base_ms,
        row_ms=row_ms,
        simulator=simulator.absolute(),
        peer_python=peer_python,
    )
    show(compare(setting))


if __name__ == "__main__":
    typer.run(main)
