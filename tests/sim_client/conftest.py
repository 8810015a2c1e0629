"""Shared by the client's tests: a small spec, a policy server on a free port, the command line in a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # tests/ holds no packages; the doubles beside this file are imported by name

from fake_environment import FakeEnvironment  # noqa: E402
from fake_policy_server import FakePolicyServer  # noqa: E402
from written_results import write_results  # noqa: E402

from policy_protocol import PolicySpec  # noqa: E402
from policy_protocol.errors import ChunkwireError  # noqa: E402
from policy_protocol.spec import (  # noqa: E402
    ActionSpec,
    CameraSpec,
    CheckpointId,
    ObservationSpec,
    PolicySection,
    PromptSpec,
    SimulationSpec,
    StateField,
    StateSpec,
)
from sim_client.commands.app import app  # noqa: E402
from sim_client.evaluation.plan import plan_evaluation  # noqa: E402
from sim_client.results.options import EvaluationOptions  # noqa: E402
from sim_client.results.run_record import FORMAT, RunRecord  # noqa: E402

PROMPT = "Push and move a cube to a goal region in front of it."


def camera(name: str, key: str, slot: str, **changes: Any) -> CameraSpec:
    spec = CameraSpec(key, slot, name, 64, 64, mean=(20.0, 20.0, 20.0), std=(5.0, 5.0, 5.0))
    return replace(spec, **changes)


@pytest.fixture
def spec() -> PolicySpec:
    """Two 64x64 cameras, qpos[:8], seven actions, chunks of four of which three are run."""
    return PolicySpec(
        policy=PolicySection(
            family="pi05",
            action_horizon=4,
            execution_horizon=3,
            denoising_steps=2,
            checkpoint=CheckpointId("tiny", "test", 9),
            parameter_count=1,
            normalization="quantile",
        ),
        observation=ObservationSpec(
            cameras=(
                camera("base_camera", "observation/image", "base_0_rgb"),
                camera("hand_camera", "observation/wrist_image", "left_wrist_0_rgb"),
            ),
            state=StateSpec(
                key="observation/state",
                fields=(StateField("qpos", "agent/qpos", 0, 8),),
                q01=(-10.0,) * 8,
                q99=(10.0,) * 8,
            ),
            prompt=PromptSpec("prompt", max_tokens=48, includes_state=True, trained=(PROMPT,)),
        ),
        action=ActionSpec(
            dimension=7,
            names=("x", "y", "z", "rx", "ry", "rz", "gripper"),
            control_mode="pd_ee_delta_pose",
            low=(-1.0,) * 7,
            high=(1.0,) * 7,
        ),
        simulation=SimulationSpec(
            env_ids=("PushCube-v1",),
            robot_uids="panda_wristcam",
            sim_freq=100,
            control_freq=20,
            demonstration_length={"q50": 10.0, "q95": 11.0, "max": 12.0},
            max_episode_steps=20,
            demonstration_seeds=(1000, 1001),
        ),
    )


@pytest.fixture
def describe_run(spec: PolicySpec) -> Callable[..., RunRecord]:
    """The record of a run of four episodes, as the command line would make it from these options."""

    def describe(**changes: Any) -> RunRecord:
        options = EvaluationOptions(**{"env_id": "PushCube-v1", "episodes": 4, **changes})
        plan = plan_evaluation(spec, options)
        return RunRecord(
            format=FORMAT,
            created="2030-01-01T00:00:00+00:00",
            command=("sim-client", "--env", "PushCube-v1", "--prompt", "two words"),
            server="ws://127.0.0.1:8000",
            options=options,
            seeds=plan.seeds,
            settings=plan.settings,
            prompt=plan.prompt,
            execution_horizon=plan.chunk_use.execution_horizon,
            checkpoint=str(spec.policy.checkpoint),
            spec_hash=spec.hash,
            overrides=options.overrides,
            mismatches=plan.mismatches,
            notices=plan.notices,
            versions={"numpy": "1"},
            spec=spec,
        )

    return describe


@pytest.fixture
def results(describe_run: Callable[..., RunRecord], tmp_path: Path, monkeypatch) -> Callable[..., Path]:
    """Write results directories into an empty current folder, see `write_results`."""
    monkeypatch.chdir(tmp_path)
    return partial(write_results, describe_run)


@pytest.fixture
def start_server(spec: PolicySpec) -> Iterator[Callable[..., FakePolicyServer]]:
    """Start policy servers that are stopped with the test."""
    servers: list[FakePolicyServer] = []

    def start(answer: Any = None, *, of: PolicySpec = spec, **options: Any) -> FakePolicyServer:
        servers.append(FakePolicyServer(of, answer, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def start_client(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the real command line in a process of its own, by default on the fake environment."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object, fake: bool = True) -> subprocess.Popen[str]:
        program = [str(HERE / "sim_client_on_fake_environment.py")] if fake else ["-c", _REAL]
        command = [sys.executable, *program, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, cwd=tmp_path, text=True, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


_REAL = "from sim_client.cli import main; main()"


@pytest.fixture
def sim_client(start_client: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line to its end: exit code, standard output, standard error."""

    def run(*arguments: object, fake: bool = True) -> tuple[int, str, str]:
        process = start_client(*arguments, fake=fake)
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    return run


@dataclass(frozen=True)
class Ended:
    """What a command left behind; `error` is what it ended with, None for a good end."""

    output: str
    errors: str
    error: ChunkwireError | None


@pytest.fixture
def command(tmp_path: Path, monkeypatch, capsys) -> Callable[..., Ended]:
    """Run the command line in this process on the fake environment, without workers; needs no seconds to start."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, environment: Any = FakeEnvironment) -> Ended:
        error = None
        try:
            app([*map(str, arguments), "--workers", "0"], standalone_mode=False, obj=environment)
        except ChunkwireError as raised:
            error = raised
        return Ended(*capsys.readouterr(), error)

    return run
