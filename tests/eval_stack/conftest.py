"""Shared by the eval stack's tests: step directories, a double of the engine, and the command line on it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # tests/ holds no packages; the double beside this file is imported by name

import docker  # noqa: E402
from fake_engine import FakeEngine  # noqa: E402

from eval_stack import cli, results, running, server, stack  # noqa: E402


@pytest.fixture
def make_step(tmp_path: Path) -> Callable[[str], Path]:
    """Something that looks like a step directory, at a path below the test's folder."""

    def make(path: str) -> Path:
        for part in ("params", "assets"):
            (tmp_path / path / part).mkdir(parents=True)
        return tmp_path / path

    return make


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Where the SDK would connect to."""
    double = FakeEngine()
    monkeypatch.setattr(docker, "from_env", lambda: double)
    for module in (results, running, server, stack):
        monkeypatch.setattr(module, "_POLL_S", 0.001)
    for name in ("SERVER_IMAGE", "SIM_IMAGE", "BASE_IMAGE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    return double


@dataclass(frozen=True)
class Ended:
    """A command that ran to its end."""

    code: int
    out: str
    err: str


@pytest.fixture
def eval_stack(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """The command line, in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["eval-stack", *map(str, arguments)])
        monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return Ended(end.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def first(make_step: Callable[[str], Path], tmp_path: Path) -> tuple[object, ...]:
    """Flags of the smallest matrix."""
    return (
        "--checkpoint",
        f"first={make_step('runs/a/1')}",
        "--env",
        "StackCube-v1",
        "--episodes",
        4,
        "--out",
        tmp_path / "out",
    )


@pytest.fixture
def two_by_two(make_step: Callable[[str], Path], tmp_path: Path) -> tuple[object, ...]:
    """Flags of two checkpoints on two tasks."""
    checkpoints = [f"{name}={make_step(f'runs/{name}/1')}" for name in ("first", "second")]
    flags = [part for checkpoint in checkpoints for part in ("--checkpoint", checkpoint)]
    return (*flags, "--env", "StackCube-v1,PickCube-v1", "--episodes", 4, "--out", tmp_path / "out")
