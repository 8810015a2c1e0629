"""A real server process on a free port, serving openpi's tiny recorded checkpoint."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from policy_protocol.spec import (
    ActionSpec,
    CameraSpec,
    CheckpointId,
    ObservationSpec,
    PolicySection,
    PolicySpec,
    PromptSpec,
    StateField,
    StateSpec,
)

OPENPI = Path(__file__).parents[1] / "data/openpi"
CHECKPOINT = OPENPI / "checkpoints/tiny_pi05/100"
TOKENIZER = OPENPI / "tiny_tokenizer.model"
SERVE = Path(sys.executable).with_name("serve")
REHEARSED = Path(__file__).with_name("rehearsed_policy.py")

LIBERO = PolicySpec(
    PolicySection("pi05", 20, 10, 10, CheckpointId("pi05_libero", "tiny", 100), 244_160, "quantile"),
    ObservationSpec(
        (
            CameraSpec("observation/image", "base_0_rgb", "", 224, 224),
            CameraSpec("observation/wrist_image", "left_wrist_0_rgb", "", 224, 224),
        ),
        StateSpec("observation/state", (StateField("state", "", 0, 8),)),
        PromptSpec("prompt", 64, True, ("pick up the red cube",)),
    ),
    ActionSpec(7, ("x", "y", "z", "rx", "ry", "rz", "gripper"), ""),
)


class ServerProcess:
    """`serve` as a user starts it; its log is collected."""

    def __init__(self, arguments, environment, command=(SERVE,)):
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self._follow()), daemon=True)
        self._port = threading.Event()
        self.port = None
        self._reader.start()

    def _follow(self):
        for line in self.process.stderr:
            if found := re.search(r"https?://[\d.]+:(\d+)/healthz", line):
                self.port = int(found[1])
                self._port.set()
            yield line

    @property
    def log(self):
        """All of it once the process has ended; of a living one, what it wrote a moment ago may be missing."""
        if self.process.poll() is not None:
            self._reader.join(10)
        return "".join(self.lines)

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}"

    @property
    def grpc_url(self):
        """Of a server that is ready; its log may say the address a moment after its page says ready."""
        deadline = time.monotonic() + 30
        while not (found := re.search(r"grpcs?://[\d.]+:\d+", self.log)):
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        return found[0]

    def page(self, path):
        """(status, body) of a page on the server's port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait_listening(self):
        assert self._port.wait(120), self.log
        return self

    def wait_ready(self):
        self.wait_listening()
        deadline = time.monotonic() + 180
        while self.page("/readyz")[0] != 200:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)
        return self

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()


@pytest.fixture(scope="session")
def spec_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "libero.json"
    path.write_text(LIBERO.to_json())
    return path


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """An environment whose caches are the tests' own."""
    return {**os.environ, "CHUNKWIRE_CACHE": str(tmp_path_factory.mktemp("cache")), "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="session")
def launch(spec_file, environment):
    """A context manager that starts `serve` on the tiny checkpoint with more arguments."""

    @contextlib.contextmanager
    def launched(*arguments):
        base = ["--checkpoint", CHECKPOINT, "--spec", spec_file, "--tokenizer", TOKENIZER]
        server = ServerProcess([*base, "--batch-sizes", "1,4", "--port", 0, *arguments], environment)
        try:
            yield server
        finally:
            server.stop()

    return launched


@pytest.fixture(scope="session")
def server(launch):
    """One server for all tests that leave it as it was."""
    with launch() as process:
        yield process.wait_ready()


@pytest.fixture(scope="session")
def rehearse(spec_file, environment):
    """A context manager that starts `serve` on the policy of rehearsed_policy.py, which does as it is asked."""

    @contextlib.contextmanager
    def rehearsing(*arguments):
        base = ["--policy", "rehearsed", "--spec", spec_file, "--port", 0, "--no-grpc", "--log-level", "debug"]
        server = ServerProcess([*base, *arguments], environment, (sys.executable, REHEARSED))
        try:
            yield server
        finally:
            server.stop()

    return rehearsing


@pytest.fixture(scope="session")
def rehearse_run(environment):
    """A context manager that starts `serve --follow RUN` on steps that rehearsed_policy.py has written."""

    @contextlib.contextmanager
    def rehearsing(run, *arguments, **more_environment):
        base = ["--follow", run, "--port", 0, "--batch-sizes", "1,4"]
        server = ServerProcess([*base, *arguments], {**environment, **more_environment}, (sys.executable, REHEARSED))
        try:
            yield server
        finally:
            server.stop()

    return rehearsing


@pytest.fixture
def observation():
    random = np.random.default_rng(0)
    return {
        "observation/image": random.integers(0, 256, (96, 96, 3), np.uint8),
        "observation/wrist_image": random.integers(0, 256, (96, 96, 3), np.uint8),
        "observation/state": random.uniform(-0.5, 0.5, 8),
        "prompt": "pick up the red cube",
    }
