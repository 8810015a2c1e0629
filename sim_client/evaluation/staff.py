"""Who runs the episodes: this process, worker processes here, or actors of a Ray cluster."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sim_client.crew.inline import InlineCrew
from sim_client.crew.processes import SILENCE_S, ProcessCrew
from sim_client.crew.workshop import Crew, Workshop
from sim_client.episode.vector_runner import require_no_film
from sim_client.episode.video import VideoRules
from sim_client.errors import InvalidOption
from sim_client.evaluation.workshop import EpisodeWorkshop
from sim_client.option_checks import require_at_least, require_choice, require_seconds
from sim_client.simulator import SimulationSettings, require_backend

__all__ = ["LAUNCHERS", "Staff", "require_recordable"]

LAUNCHERS = ("local", "ray")
"""Values of `--launcher`."""

_MOST_BY_DEFAULT = 8
_LOOPBACK = re.compile(r"(^|//)(localhost|127\.|\[::1\])")


@dataclass(frozen=True)
class Staff:
    """How many work, and where. Nothing of it changes what an episode measures.

    Raises:
        InvalidOption: a value is out of range; the message names the flag.
    """

    workers: int | None = None
    """Worker processes; 0 works in this process, None takes half of the cores, at most eight."""
    launcher: str = "local"
    """`local`, or `ray` for actors of a Ray cluster."""
    ray_address: str | None = None
    """Of the cluster; None starts one on this machine."""
    num_envs: int = 1
    """Environments that a worker simulates side by side, on a GPU."""
    silence_s: float = SILENCE_S
    """How long a worker at work may give no sign of life before it is killed."""

    def __post_init__(self) -> None:
        require_choice("--launcher", self.launcher, LAUNCHERS)
        require_at_least("--num-envs", self.num_envs, 1)
        require_seconds("--watchdog", self.silence_s)
        if self.workers is not None:
            require_at_least("--workers", self.workers, 1 if self.launcher == "ray" else 0)
        if self.ray_address is not None and self.launcher != "ray":
            raise InvalidOption(
                f"--ray-address {self.ray_address} has no effect with --launcher {self.launcher}. "
                "Pass --launcher ray, or leave it out.",
                field="--ray-address",
            )

    def hire(self, workshop: Workshop, leases: int, logs: Path, retries: int) -> Crew:
        """A crew for so many leases.

        Args:
            logs: folder for the workers' output.
            retries: how often an episode is begun anew. Only when three in a row are given up without any result in
                between, it is the machine that is at fault.
        """
        most_crashes = 3 * (retries + 1)
        size = min(leases, self._size())
        if self.launcher == "ray":
            from sim_client.crew.ray_actors import RayCrew

            return RayCrew(workshop, size, self.ray_address, self.silence_s, most_crashes)
        if not size:
            return InlineCrew(workshop)
        return ProcessCrew(workshop, logs, size, self.silence_s, most_crashes)

    def notices(self, workshop: EpisodeWorkshop) -> list[str]:
        """What is easily overlooked where workers run on other machines."""
        if self.ray_address is None:
            return []
        notices, keepsakes = [], workshop.keepsakes
        if local := [url for url in workshop.dial.servers.split(",") if _LOOPBACK.search(url)]:
            notices.append(f"Each worker asks for the policy at {', '.join(local)} of its own machine.")
        if keepsakes.observations or keepsakes.video.which != "none":
            notices.append(
                f"Films and observations are written by the workers to {keepsakes.directory} of their own machines; "
                "they arrive here only if that folder is shared."
            )
        return notices

    def _size(self) -> int:
        if self.workers is not None:
            return self.workers
        return max(1, min(_MOST_BY_DEFAULT, (os.cpu_count() or 1) // 2))


def require_recordable(settings: SimulationSettings, staff: Staff, video: VideoRules) -> None:
    """Raises `InvalidOption` when the simulation and what is to be run or filmed of it do not go together."""
    require_backend(settings, staff.num_envs, here=staff.ray_address is None)
    video.check(settings)
    if settings.sim_backend == "gpu":
        require_no_film(video)
