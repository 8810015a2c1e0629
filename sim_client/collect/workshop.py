"""What a collection's workers do: one demonstration per seed, with a simulator and a planner of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sim_client.collect.request import CollectionRequest
from sim_client.collect.trajectories import Episode, write_episode
from sim_client.crew.workshop import Tell
from sim_client.errors import CollectionError, PlanningFailed
from sim_client.simulator import SimulatorDescription

if TYPE_CHECKING:
    from sim_client.simulator import Planner, Simulator

__all__ = ["DemonstrationWorkshop"]


@dataclass(frozen=True)
class DemonstrationWorkshop:
    """Makes `seed_<n>.h5` files."""

    request: CollectionRequest
    directory: Path
    """Where the demonstrations go, by `write_episode`."""

    def open(self, tell: Tell) -> _DemonstrationBench:
        """Load the simulator and the planner. Raises `SimulationError`."""
        from sim_client.simulator import Planner, Simulator

        settings = self.request.settings()
        return _DemonstrationBench(self, Simulator(settings), Planner(settings), tell)


@dataclass(frozen=True)
class _DemonstrationBench:
    workshop: DemonstrationWorkshop
    simulator: Simulator
    planner: Planner
    tell: Tell

    @property
    def facts(self) -> SimulatorDescription:
        return SimulatorDescription.of(self.simulator)

    def work(self, seed: int) -> Iterator[str | CollectionError | None]:
        """None for a demonstration on disk, else the reason why there is none, or why there can be no other either."""
        yield self._collect(seed)

    def _collect(self, seed: int) -> str | CollectionError | None:
        from sim_client.collect.attempt import attempt

        request = self.workshop.request
        try:
            episode = attempt(
                self.simulator, self.planner, seed, request.frame_stride, self.tell, skip_blocked=request.skip_blocked
            )
        except PlanningFailed as failure:
            return failure.message
        return _store(self.workshop.directory / f"seed_{seed}.h5", episode)

    def close(self) -> None:
        self.simulator.close()


def _store(path: Path, episode: Episode) -> CollectionError | None:
    try:
        write_episode(path, episode)
    except (OSError, RuntimeError) as error:  # h5py's closing of a file raises the latter on a full disk
        reason = getattr(error, "strerror", None) or error
        return CollectionError(
            f"The demonstration {path} cannot be written: {reason}. The ones before it are kept; make room and run "
            "the same command again, or pass another --out."
        )
    return None
