"""The policy of `evaluation.py`: the actions of `evaluation_task.py` after a fixed time, as from a GPU elsewhere.

python benchmarks/evaluation_policy.py PORT --episodes 8 --steps 60 --base-ms 13 --row-ms 1.3
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from evaluation_task import (
    ACTION_NAMES,
    CAMERAS,
    CONTROL_FREQ,
    CONTROL_MODE,
    ENV_ID,
    PROMPT,
    ROBOT,
    SIM_FREQ,
    STATE_WIDTH,
    actions_of,
)
from server_fixed_cost import cost_s

from policy_protocol.spec import StateField
from policy_server.options import ServerOptions
from policy_server.policies.dummy import Finished
from policy_server.policies.recording import RecordedCamera, RecordedFacts, Recording
from policy_server.policies.replay import ReplayPolicy
from policy_server.process import run_server


class FixedCostReplay(ReplayPolicy):
    """One pretended device: a batch begins when the one before is done and takes the time of its padded shape."""

    def __init__(self, recording: Recording, base_ms: float, row_ms: float) -> None:
        super().__init__(recording)
        self._base_ms, self._row_ms, self._free_at = base_ms, row_ms, 0.0

    def launch(self, rows: Sequence[Any], noise: np.ndarray, pad_to: int | None = None, replica: int = 0) -> Finished:
        """Occupies the device from now on, or from the end of the batch before."""
        begin = max(self._free_at, time.perf_counter())
        self._free_at = begin + cost_s(pad_to or len(rows), self._base_ms, self._row_ms)
        return _Later(super().launch(rows, noise, pad_to, replica), self._free_at)


class _Later(Finished):
    """A batch that is done at a given moment."""

    def __init__(self, batch: Finished, done: float) -> None:
        super().__init__(batch.actions(), batch.checkpoint)
        self._done = done

    def wait(self) -> None:
        time.sleep(max(0.0, self._done - time.perf_counter()))


def recording(episodes: int, steps: int, camera_size: int) -> Recording:
    """Made up: actions of the seeds from 0 on, with the facts of a simulation in which they can be run."""
    names = {key: key.rpartition("/")[2] for key in CAMERAS}
    facts = RecordedFacts(
        env_ids=(ENV_ID,),
        robot_uids=ROBOT,
        control_mode=CONTROL_MODE,
        sim_freq=SIM_FREQ,
        control_freq=CONTROL_FREQ,
        cameras=tuple(RecordedCamera(names[key], name, camera_size, camera_size) for key, name in CAMERAS.items()),
        state_fields=(StateField("qpos", "agent/qpos", 0, STATE_WIDTH),),
        prompts=(PROMPT,),
        action_names=ACTION_NAMES,
    )
    return Recording(Path("fixed-cost"), facts, {seed: actions_of(seed, steps) for seed in range(episodes)})


def main(
    port: int,
    episodes: Annotated[int, typer.Option(help="Seeds 0, 1, …")] = 8,
    steps: Annotated[int, typer.Option(help="Of each episode.")] = 60,
    camera_size: Annotated[int, typer.Option(help="Pixels.")] = 128,
    base_ms: Annotated[float, typer.Option(help="Milliseconds of a batch.")] = 13.0,
    row_ms: Annotated[float, typer.Option(help="Milliseconds for each of its rows.")] = 1.3,
) -> None:
    """Serve on PORT."""
    policy = FixedCostReplay(recording(episodes, steps, camera_size), base_ms, row_ms)
    run_server(policy, ServerOptions(port=port, grpc=False))


if __name__ == "__main__":
    typer.run(main)
