"""A client as one writes it in an hour: render in every step, ask for a chunk, run some of it. For `evaluation.py`.

    python benchmarks/evaluation_plain_client.py URL LINES --episodes 2 --steps 60 --horizon 1

`--horizon 1` asks in every step. One JSON line an episode goes to LINES. Run by the simulator environment's Python.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from evaluation_environment import PlainEnvironment
from evaluation_task import ENV_ID, PROMPT

from policy_protocol import EpisodeMoment
from sim_client.policy_client import PolicyClient


def run_episode(
    environment: PlainEnvironment, policy: PolicyClient, seed: int, steps: int, horizon: int
) -> dict[str, Any]:
    """Its line."""
    seen, chunk, requests = environment.reset(seed), [], 0
    for step in range(steps):
        if not chunk:
            images, state = environment.images_and_state(seen)
            observation = {**images, "observation/state": state, "prompt": PROMPT}
            reply = policy.infer(observation, noise_seed=0, episode=EpisodeMoment(ENV_ID, seed, step))
            chunk, requests = list(reply.actions[:horizon]), requests + 1
        seen = environment.step(chunk.pop(0))
    return environment.record(seed, requests)


def main(
    url: str,
    lines: Path,
    episodes: Annotated[int, typer.Option(help="Seeds 0, 1, …")] = 2,
    steps: Annotated[int, typer.Option(help="Of each episode.")] = 60,
    horizon: Annotated[int, typer.Option(help="Actions of a chunk that are run.")] = 10,
    camera_size: Annotated[int, typer.Option(help="Pixels.")] = 128,
) -> None:
    """Run the episodes one after another."""
    environment = PlainEnvironment(steps, camera_size)
    with PolicyClient(url) as policy, lines.open("w") as file:
        for seed in range(episodes):
            print(json.dumps(run_episode(environment, policy, seed, steps, horizon)), file=file, flush=True)


if __name__ == "__main__":
    typer.run(main)
