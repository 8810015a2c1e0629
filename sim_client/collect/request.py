"""What a collection is asked to make, and how two such requests differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from sim_client.collect.trajectory_facts import TrajectoryFacts
from sim_client.errors import CollectionError
from sim_client.option_checks import RENDER_BACKENDS, require_at_least, require_choice
from sim_client.simulator import SimulationSettings
from sim_client.tasks import task

__all__ = ["DEFAULT_SEED", "CollectionRequest", "require_same", "require_same_versions"]

DEFAULT_SEED = 1_000_000
"""Far above the seeds of evaluations: no policy is measured on a start that it was shown."""

_FLAGS = {
    "env_id": "--env",
    "episodes": "--episodes",
    "seed": "--seed",
    "camera_size": "--camera-size",
    "sim_freq": "--sim-freq",
    "control_freq": "--control-freq",
    "frame_stride": "--frame-stride",
    "render_backend": "--render-backend",
    "skip_blocked": "--skip-blocked",
}


_RENDERING = tuple(backend for backend in RENDER_BACKENDS if backend != "none")
"""Demonstrations need images."""


@dataclass(frozen=True)
class CollectionRequest:
    """Everything that decides which bytes are collected: the same request gives the same demonstrations.

    Raises:
        InvalidOption: a value is out of range, or the frequencies do not divide; names the flag.
        UnknownEnvironment: not one of the six tasks.
    """

    env_id: str
    """The task."""
    episodes: int
    """How many demonstrations to keep."""
    seed: int = DEFAULT_SEED
    """The first seed to try."""
    camera_size: int = 128
    """Height and width of every camera."""
    sim_freq: int = 100
    """Physics steps per second."""
    control_freq: int = 20
    """Actions per second."""
    frame_stride: int = 1
    """Render steps 0, k, 2k, … and repeat the last frame in between: k times cheaper, k times coarser."""
    render_backend: str = "cpu"
    """`cpu` or `gpu`: the pixels differ slightly between the two."""
    skip_blocked: bool = False
    """Where something is in the hand's way (`sim_client.collect.blocked`), plan from above or take another seed."""

    def __post_init__(self) -> None:
        task(self.env_id)
        for name, low in (("episodes", 1), ("seed", 0), ("frame_stride", 1)):
            require_at_least(_FLAGS[name], getattr(self, name), low)
        require_choice("--render-backend", self.render_backend, _RENDERING)
        self.settings()

    def settings(self) -> SimulationSettings:
        """The environment in which the demonstrations are replayed and rendered."""
        return SimulationSettings(
            env_id=self.env_id,
            sim_freq=self.sim_freq,
            control_freq=self.control_freq,
            camera_height=self.camera_size,
            camera_width=self.camera_size,
            render_backend=self.render_backend,
        )

    @classmethod
    def of(cls, facts: TrajectoryFacts) -> CollectionRequest:
        """The request that a finished file answers."""
        simulation = facts.simulation
        return cls(
            env_id=simulation.env_id,
            episodes=len(facts.episodes),
            seed=simulation.base_seed,
            camera_size=simulation.camera_height,
            sim_freq=simulation.sim_freq,
            control_freq=simulation.control_freq,
            frame_stride=simulation.frame_stride,
            render_backend=simulation.render_backend,
            skip_blocked=simulation.skip_blocked,
        )


def require_same(found: CollectionRequest, asked: CollectionRequest, where: Path) -> None:
    """Refuse to mix demonstrations of two kinds in one file. More episodes of the same kind are no difference.

    Raises:
        CollectionError: naming the first field that differs.
    """
    for field in fields(CollectionRequest):
        before, now = getattr(found, field.name), getattr(asked, field.name)
        if before == now or (field.name == "episodes" and before < now):
            continue
        flag = _FLAGS[field.name]
        had, wanted = _passed(flag, before), _passed(flag, now)
        raise CollectionError(
            f"{where} was collected with {had}, but {wanted} was asked for. "
            f"Pass {had}, another --out, or --overwrite to collect it anew.",
            field=flag,
        )


def _passed(flag: str, value: object) -> str:
    if isinstance(value, bool):
        return flag if value else f"--no-{flag.removeprefix('--')}"
    return f"{flag} {value}"


def require_same_versions(found: Mapping[str, str], now: Mapping[str, str], where: Path) -> None:
    """Refuse to mix demonstrations of two simulators in one file, which could name only one of them.

    Raises:
        CollectionError: naming the first package that differs.
    """
    for package, before in found.items():
        if now.get(package) != before:
            raise CollectionError(
                f"{where} was collected with {package} {before}, but {package} {now.get(package)} is installed. "
                f"Install {package} {before}, pass another --out, or --overwrite to collect it anew."
            )
