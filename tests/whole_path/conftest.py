"""Shared by the tests of the whole path: a small policy of PushCube-v1, made by its recipe, and what led to it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/ holds no packages: modules are imported by name

from both_environments import EXPERIMENT, MODEL, ROOT, make_policy, run


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A clone whose environments are made, as far as make can see."""
    root = tmp_path_factory.mktemp("path")
    for name in ("Makefile", "pyproject.toml", "docker"):
        (root / name).symlink_to(ROOT / name)
    for environment in (".venv", ".venv-sim"):
        (root / environment).mkdir()
        (root / environment / "installed").touch()
    return root


@pytest.fixture(scope="session")
def environment(workspace):
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return {**inherited, "XDG_CACHE_HOME": str(workspace / "cache"), "CHUNKWIRE_CACHE": str(workspace / "cache")}


@pytest.fixture(scope="session")
def policy(workspace, environment):
    """The folder that `make policy` exports to, after it has gone through every stage."""
    output = make_policy(workspace, environment)
    stages = [line for line in output.splitlines() if line.startswith("== ")]
    assert [line.split()[1] for line in stages] == ["collecting", "converting", "training", "exporting", "evaluating"]
    return workspace / "checkpoints/pushcube"


@pytest.fixture(scope="session")
def demonstrations(workspace, policy):
    (out,) = (workspace / "demos").glob("*.h5")
    return out


@pytest.fixture(scope="session")
def checkpoint(workspace, policy):
    """The last step of the training."""
    (run_folder,) = (workspace / "runs" / EXPERIMENT).iterdir()
    return run_folder / "3"


@pytest.fixture(scope="session")
def dataset(workspace, environment, demonstrations):
    """The demonstrations whole."""
    out = workspace / "whole"
    run(MODEL / "train", "convert", demonstrations, out, env=environment)
    return out
