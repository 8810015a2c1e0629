"""vla-eval 0.8.0 on the same task, for comparison: its model server, its harness, and a ManiSkill 3 adapter.

    python benchmarks/evaluation_vla_eval.py serve PORT EPISODES STEPS HORIZON BASE_MS ROW_MS
    python benchmarks/evaluation_vla_eval.py run URL LINES EPISODES STEPS CAMERA_SIZE

It brings an adapter of ManiSkill 2 only; this one is written after its pattern. Its chunks live in the server: the
harness renders, encodes and sends every step, and most answers come out of the server's buffer. Run by a Python that
has vla-eval 0.8.0, mani_skill 3.0.1 and a numpy before 2.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from evaluation_task import PROMPT, actions_of
from vla_eval.api import run as run_vla_eval
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve


class FixedCost(PredictModelServer):
    """The same actions after the same time."""

    def __init__(self, episodes: int, steps: int, horizon: int, cost_s: float) -> None:
        super().__init__(chunk_size=horizon)
        still = np.zeros((horizon, 7), np.float32)
        self._actions = [np.concatenate([actions_of(seed, steps), still]) for seed in range(episodes)]
        self._cost_s = cost_s
        self._seeds: dict[str, int] = {}

    async def on_episode_start(self, config: Any, ctx: Any) -> None:
        """Only here is the server told which task it is."""
        self._seeds[ctx.session_id] = config["task"]["seed"]
        await super().on_episode_start(config, ctx)

    def predict(self, obs: Any, ctx: Any) -> Any:
        """A chunk from the session's step on."""
        time.sleep(self._cost_s)
        return {"actions": self._actions[self._seeds[ctx.session_id]][ctx.step : ctx.step + self.chunk_size]}

    def get_action_spec(self) -> dict:
        """None is declared."""
        return {}

    def get_observation_spec(self) -> dict:
        """None is declared."""
        return {}


class ManiSkill3(StepBenchmark):
    """One episode of each seed; a line for each."""

    def __init__(self, lines: str, episodes: int, steps: int, camera_size: int) -> None:
        super().__init__()
        from evaluation_environment import PlainEnvironment

        self._environment = PlainEnvironment(steps, camera_size)
        self._lines, self._episodes, self._steps, self._done = Path(lines), episodes, steps, 0

    def get_tasks(self) -> list:
        """Seeds are tasks: the harness hands on nothing else by which an episode could be told."""
        return [{"name": f"seed {seed}", "seed": seed} for seed in range(self._episodes)]

    def reset(self, task: Any) -> Any:
        """The first observation."""
        self._done = 0
        return self._environment.reset(task["seed"])

    def step(self, action: Any) -> StepResult:
        """One action."""
        self._done += 1
        seen = self._environment.step(np.asarray(action["actions"], np.float32))
        return StepResult(obs=seen, reward=0.0, done=self._done >= self._steps, info={})

    def make_obs(self, raw_obs: Any, task: Any) -> Any:
        """As its ManiSkill 2 adapter does, with the state."""
        images, state = self._environment.images_and_state(raw_obs)
        return {"images": images, "states": state, "task_description": PROMPT}

    def get_step_result(self, step_result: StepResult) -> Any:
        """Writes the episode's line."""
        line = json.dumps(self._environment.record(self._task["seed"], self._done))
        with self._lines.open("a") as file:
            print(line, file=file)
        return {"success": False}

    def get_action_spec(self) -> dict:
        """None is declared."""
        return {}

    def get_observation_spec(self) -> dict:
        """None is declared."""
        return {}


def _run(url: str, lines: str, episodes: int, steps: int, camera_size: int) -> None:
    params = {"lines": lines, "episodes": episodes, "steps": steps, "camera_size": camera_size}
    entry = {
        "benchmark": "evaluation_vla_eval:ManiSkill3",
        "episodes_per_task": 1,
        "max_steps": steps,
        "params": params,
    }
    run_vla_eval({"benchmarks": [entry]}, server_url=url, output_dir=Path(lines).parent, no_save=True, docker=False)


if __name__ == "__main__":
    part, *words = sys.argv[1:]
    if part == "serve":
        port, episodes, steps, horizon = map(int, words[:4])
        serve(FixedCost(episodes, steps, horizon, sum(map(float, words[4:])) / 1e3), host="127.0.0.1", port=port)
    else:
        _run(words[0], words[1], *map(int, words[2:]))
