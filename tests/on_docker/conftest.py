"""Images built on a real engine, and a policy made by them: `make test-containers`.

Of the environment: BASE_IMAGE, else Debian is pulled, or made from packages where that fails; WHEELS, a folder of
wheels that the package index does not have, such as torch's CPU build, offered to pip on the loopback meanwhile.
"""

from __future__ import annotations

import functools
import http.server
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/ holds no packages: modules are imported by name

from stacks import ROOT, Stack, free_port, run

DEBIAN, FROM_PACKAGES = "debian:bookworm-slim", "chunkwire-base:bookworm"
SERVER, SIM, TRAIN = "chunkwire/policy-server:test", "chunkwire/sim-client:test", "chunkwire/training:test"
WHEELS_PORT = 8765
"""Always the same: the engine's cache knows a step by its build arguments."""
FIGURES: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("images and times")
    for line in FIGURES:
        terminalreporter.write_line(line)


def timed(what: str, work: Callable[[], object]) -> None:
    start = time.monotonic()
    work()
    FIGURES.append(f"{what}: {time.monotonic() - start:.0f} s")


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    assert os.getuid() == 0, "make test-containers needs root: it gives folders away and kills processes"
    client = docker.from_env()
    client.ping()
    return client


@pytest.fixture(scope="session")
def base(engine: docker.DockerClient) -> str:
    if given := os.environ.get("BASE_IMAGE"):
        return given
    try:
        engine.images.pull(*DEBIAN.split(":"))
        return DEBIAN
    except docker.errors.APIError:
        if engine.images.list(FROM_PACKAGES):
            return FROM_PACKAGES
        timed(f"{FROM_PACKAGES} by debootstrap", lambda: run("sh", ROOT / "docker/make-base-image.sh", FROM_PACKAGES))
        return FROM_PACKAGES


@pytest.fixture(scope="session")
def links() -> Iterator[str]:
    """A page of links to WHEELS; empty without."""
    if not (folder := os.environ.get("WHEELS")):
        yield ""
        return
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", WHEELS_PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{WHEELS_PORT}/"
        server.shutdown()


@dataclass(frozen=True)
class Images:
    server: str
    sim: str
    train: str


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient, base: str, links: str) -> Images:
    """The three, built anew as far as the engine's cache does not know them."""
    for name, image in (("policy_server", SERVER), ("sim_client", SIM), ("training", TRAIN)):
        arguments = {"BASE": base, "PIP_FIND_LINKS": links}
        if name != "sim_client":
            arguments["ACCELERATOR"] = "cpu"
        build = ["docker", "build", "--network", "host", "-f", f"docker/{name}.Dockerfile", "-t", image]
        flags = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        timed(f"{image} built", lambda build=build, flags=flags: run(*build, *flags, ".", cwd=ROOT))
        FIGURES.append(f"{image}: {engine.images.get(image).attrs['Size'] / 1e6:.0f} MB")
    return Images(SERVER, SIM, TRAIN)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every container may enter: pytest's own are for their owner alone."""
    folder = tmp_path_factory.mktemp("stack")
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def checkpoints(images: Images, workplace: Path) -> tuple[Path, Path]:
    """Two policies of a few training steps: from demonstrations to checkpoints in containers alone."""
    mounted = ["docker", "run", "--rm", "-v", f"{workplace}:/work", "-w", "/work", "--user", "0:0"]
    for folder in ("demos", "datasets", "runs"):
        (workplace / folder).mkdir()
    collect = "collect --env StackCube-v1 --episodes 2 --frame-stride 25 --camera-size 128 --out demos/stack.h5"
    timed("two demonstrations collected", lambda: run(*mounted, images.sim, *collect.split()))
    run(*mounted, images.train, "convert", "demos/stack.h5", "datasets/stack")
    train = "pi05_maniskill_stackcube_small --dataset datasets/stack --set steps=2 --set batch_size=2"
    train += " --set optimizer.warmup_steps=1"
    for seed in (1, 2):
        name = ("--exp-name", f"seed{seed}", "--set", f"seed={seed}")
        timed("two training steps", lambda name=name: run(*mounted, images.train, *train.split(), *name))
    run(*mounted, "--entrypoint", "chmod", images.train, "-R", "a+rX", "/work")
    first, second = (workplace / f"runs/pi05_maniskill_stackcube_small/seed{seed}/1" for seed in (1, 2))
    return first, second


@pytest.fixture
def stack(
    request: pytest.FixtureRequest, images: Images, checkpoints: tuple[Path, Path], workplace: Path
) -> Iterator[Callable[..., Stack]]:
    """A stack of this test's own project and results, taken down afterwards."""
    made: list[Stack] = []

    def make(compose: list[str], **environment: object) -> Stack:
        results = workplace / f"results{time.monotonic_ns()}"
        results.mkdir()
        own = {
            "COMPOSE_PROJECT_NAME": f"chunkwire-test-{os.getpid()}-{len(made)}",
            "CHECKPOINT": checkpoints[0],
            "EPISODES": 4,
            "RESULTS": results,
            "SERVER_IMAGE": images.server,
            "SIM_IMAGE": images.sim,
            "TRAIN_IMAGE": images.train,
            "SERVER_PORT": free_port(),
            "SIM_ARGS": "--workers 1",
        }
        made.append(Stack(compose, {key: str(value) for key, value in {**own, **environment}.items()}))
        return made[-1]

    yield make
    for one in made:
        one.run("down", "--volumes", "--timeout", "5")
