"""A double of the Docker SDK's client. Containers live as a script says, one step each time their state is asked for.

What the stack passes is translated by the SDK's own code, so an argument that the SDK does not know fails here too.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import _create_container_args
from docker.types import EndpointConfig

Step = str | int | Callable[["FakeContainer"], None]
"""`starting`, `healthy`, `unhealthy`, `running`; an exit code; or something that happens."""

VERSION = "1.41"


def refused(status: int, text: str) -> APIError:
    return APIError(text, response=SimpleNamespace(status_code=status, url="", reason=text), explanation=text)


class FakeContainer:
    def __init__(self, engine: FakeEngine, arguments: dict[str, Any]) -> None:
        self.engine, self.name, self.labels = engine, arguments["name"], arguments["labels"]
        self.role = self.labels["chunkwire.role"]
        self.program, self.command = arguments["entrypoint"][0], arguments["command"]
        self.mounts = {mount["Target"]: mount["Source"] for mount in arguments["mounts"]}
        self.created = _create_container_args({**arguments, "version": VERSION})
        self.attrs: dict[str, Any] = {"State": {"Status": "created", "ExitCode": 0}}
        self.steps: deque[Step] = deque()
        self.lines: list[str] = []
        self.starts = 0

    def start(self) -> None:
        self._require_here()
        lives = self.engine.lives[self.role]
        self.steps = deque(lives[min(self.starts, len(lives) - 1)])
        self.starts += 1
        self.lines += self.engine.logs.get(self.role, [])
        self.engine.history.append(f"start {self.role}")
        self._become("starting")
        self.engine.on_start(self)

    def reload(self) -> None:
        self._require_here()
        if self.steps:
            step = self.steps[0] if len(self.steps) == 1 and not callable(self.steps[0]) else self.steps.popleft()
            step(self) if callable(step) else self._become(step)

    def die(self, code: int) -> None:
        self.steps = deque([code])
        self._become(code)

    def kill(self, signal: str) -> None:
        self._require_here()
        self.engine.history.append(f"{signal} {self.role}")
        if self.attrs["State"]["Status"] != "running":
            raise refused(409, "is not running")
        if signal == "SIGKILL" or self.role not in self.engine.stubborn:
            self.die({"SIGINT": 130, "SIGTERM": 0, "SIGKILL": 137}[signal])

    def remove(self, force: bool = False, v: bool = False) -> None:
        self._require_here()
        assert force
        assert v
        self.engine.history.append(f"remove {self.role}")
        self.engine.containers.all.remove(self)

    def logs(self, *, stream: bool = False, follow: bool = False, timestamps: bool = False, **which: bool) -> Any:
        if stream:
            stamped = (f"2026-11-23T09:{n:02d}:00.000000000Z {line}\n" for n, line in enumerate(self.lines))
            return (part for line in stamped for part in (line[:7].encode(), line[7:].encode()))
        return self.engine.output(self).encode()

    def _require_here(self) -> None:
        if self not in self.engine.containers.all:
            raise NotFound(f"No such container: {self.name}")

    def _become(self, step: str | int) -> None:
        if isinstance(step, int):
            self.attrs = {"State": {"Status": "exited", "ExitCode": step, "OOMKilled": self.engine.out_of_memory}}
        else:
            health = {"Health": {"Status": step}} if self.role == "server" and step != "running" else {}
            self.attrs = {"State": {"Status": "running", "ExitCode": 0, **health}}


class _Listed:
    """Containers or networks, found by label."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def list(self, all: bool = False, filters: dict[str, Any] | None = None) -> list[Any]:
        wanted = (filters or {}).get("label", [])
        wanted = [wanted] if isinstance(wanted, str) else wanted
        return [one for one in self.all if set(wanted) <= {*one.labels, *(f"{k}={v}" for k, v in one.labels.items())}]


class _Containers(_Listed):
    def __init__(self, engine: FakeEngine) -> None:
        super().__init__()
        self._engine = engine

    def create(self, **arguments: Any) -> FakeContainer:
        if any(one.name == arguments["name"] for one in self.all):
            raise refused(409, f"The name {arguments['name']} is in use")
        self.all.append(container := FakeContainer(self._engine, arguments))
        self._engine.ever.append(container)
        return container


class FakeNetwork:
    def __init__(self, networks: _Networks, name: str, labels: dict[str, str]) -> None:
        self.networks, self.name, self.labels, self.attrs = networks, name, labels, {"Labels": labels}

    def remove(self) -> None:
        self.networks.all.remove(self)


class _Networks(_Listed):
    def create(self, name: str, driver: str, labels: dict[str, str]) -> None:
        assert driver == "bridge"
        self.all.append(FakeNetwork(self, name, labels))


class _Images:
    def __init__(self) -> None:
        self.here = {"chunkwire/policy-server:cpu", "chunkwire/policy-server", "chunkwire/sim-client"}

    def get(self, name: str) -> None:
        if name not in self.here:
            raise ImageNotFound(f"No such image: {name}")


class _Api:
    """The parts of the SDK that have no model."""

    def __init__(self, images: _Images) -> None:
        self._images = images
        self.events: list[dict[str, Any]] = []
        self.builds: list[dict[str, Any]] = []
        self.pulls: list[tuple[str, str]] = []

    def create_endpoint_config(self, **arguments: Any) -> EndpointConfig:
        return EndpointConfig(VERSION, **arguments)

    def build(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        self.builds.append(arguments)
        self._images.here.add(arguments["tag"])
        return iter(self.events)

    def pull(self, repository: str, *, tag: str, stream: bool, decode: bool) -> Iterator[dict[str, Any]]:
        assert stream
        assert decode
        self.pulls.append((repository, tag))
        return iter(self.events)


class FakeEngine:
    """Everything goes well unless a test says otherwise."""

    def __init__(self) -> None:
        self.containers, self.networks, self.images = _Containers(self), _Networks(), _Images()
        self.api = _Api(self.images)
        self.lives: dict[str, list[list[Step]]] = {
            "server": [["starting", "starting", "healthy"]],
            "sim": [["running", "running", 0]],
            "report": [["running", 0]],
        }
        """Role -> what happens in its first life, after the first restart, and so on; the last life is repeated."""
        self.logs: dict[str, list[str]] = {}
        self.stubborn: set[str] = set()
        self.out_of_memory = False
        self.ever: list[FakeContainer] = []
        self.history: list[str] = []
        self.security_options = ["name=seccomp,profile=builtin"]

    def info(self) -> dict[str, Any]:
        return {"SecurityOptions": self.security_options}

    def role(self, role: str) -> list[FakeContainer]:
        """Containers of a role, also those that are removed."""
        return [container for container in self.ever if container.role == role]

    def on_start(self, container: FakeContainer) -> None:
        """A client leaves the files of a finished evaluation."""
        if container.role == "sim":
            for task in flag(container, "--env").split(","):
                write_results(container, task)

    def output(self, container: FakeContainer) -> str:
        verb, *folders = container.command
        if verb == "report":
            return json.dumps(summary(2, 4, f"/results of {folders[0]}"))
        (Path(container.mounts["/results"]) / "comparison.md").write_text("# compared\n")
        names = [Path(folder).name for folder in folders if folder.startswith("/results/")][:-1]
        return json.dumps({"result": f"{' and '.join(names)} cannot be told apart.", "warnings": []})

    def close(self) -> None:
        pass


def flag(container: FakeContainer, name: str) -> str:
    return str(container.command[container.command.index(name) + 1])


def write_results(container: FakeContainer, task: str) -> None:
    out = Path(flag(container, "--out"))
    mounted = next(target for target in container.mounts if out.is_relative_to(target))
    folder = Path(container.mounts[mounted]) / out.relative_to(mounted)
    folder = folder if folder.name == task else folder / task
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text("{}")
    seeds = range(int(flag(container, "--seed")), int(flag(container, "--seed")) + int(flag(container, "--episodes")))
    lines = [json.dumps({"seed": seed, "outcome": "success"}) + "\n" for seed in seeds]
    (folder / "episodes.jsonl").write_text("".join(lines))


def summary(successes: int, episodes: int, text: str = "") -> dict[str, Any]:
    """What the index reads of `sim-client report --json`."""
    rate = {"successes": successes, "episodes": episodes, "text": text or f"{successes}/{episodes}"}
    return {
        "success_once": rate,
        "success_at_end": rate,
        "anytime_interval_95": None,
        "outcomes": {"error": 0},
        "missing": 0,
    }
