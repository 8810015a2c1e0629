"""Shared by the tests of the whole path: two demonstrations of PushCube-v1, as a file and as a dataset."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/ holds no packages: modules are imported by name

from both_environments import MODEL, SIMULATOR, run


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("path")


@pytest.fixture(scope="session")
def environment(workspace):
    return {**os.environ, "XDG_CACHE_HOME": str(workspace / "cache"), "CHUNKWIRE_CACHE": str(workspace / "cache")}


@pytest.fixture(scope="session")
def demonstrations(workspace, environment):
    out = workspace / "pushcube.h5"
    arguments = ("--env", "PushCube-v1", "--episodes", 2, "--camera-size", 64, "--frame-stride", 8, "--out", out)
    run(SIMULATOR / "sim-client", "collect", *arguments, env=environment)
    return out


@pytest.fixture(scope="session")
def dataset(workspace, environment, demonstrations):
    out = workspace / "pushcube"
    run(MODEL / "train", "convert", demonstrations, out, env=environment)
    return out
