"""Serving a run while it trains: the newest complete step is loaded in place, and clients are told by its number."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from policy_protocol.errors import ChunkwireError
from policy_protocol.spec import PolicySpec
from policy_server.log import log
from training.pi05.checkpoint.step_directory import CheckpointInvalid, steps_in

__all__ = ["Follower", "first_step"]


class Followed(Protocol):
    """The policy that is kept up to date."""

    @property
    def spec(self) -> PolicySpec:
        """Whose checkpoint id names the step that is served."""
        ...


def first_step(run: Path, every_s: float = 5.0, wait_s: float = float("inf")) -> Path:
    """The newest complete step of a run; waits for the first one.

    Raises:
        CheckpointInvalid: there is no such folder, or no step came in `wait_s` seconds.
    """
    if not run.is_dir():
        raise CheckpointInvalid(f"There is no run at {run} to follow. Pass the folder that train made: RUNS/NAME/RUN.")
    end = time.monotonic() + wait_s
    while not (steps := steps_in(run)):
        if time.monotonic() > end:
            raise CheckpointInvalid(f"{run} has no complete step yet. Start the training, or wait for its first save.")
        log.info("%s has no complete step yet; looking again in %g s", run, every_s)
        time.sleep(every_s)
    return run / str(steps[-1])


class Follower:
    """Looks for a newer step now and then.

    Args:
        policy: whose weights are replaced.
        run: the run's folder.
        reload: puts a step into the policy; called from another thread. Raises when the step cannot be used.
        every_s: seconds between looks.
    """

    def __init__(self, policy: Followed, run: Path, reload: Callable[[Path], None], every_s: float = 5.0) -> None:
        self._policy, self._run, self._reload, self._every_s = policy, run, reload, every_s
        self._tried = self._served

    @property
    def _served(self) -> int:
        return self._policy.spec.policy.checkpoint.step

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Load the newest step if there is one that was not tried yet.

        Whatever goes wrong changes nothing and ends nothing: a disk may stutter, memory may be short, and the next step
        gets its own chance.
        """
        try:
            steps = await asyncio.to_thread(steps_in, self._run)
            if steps and steps[-1] > self._tried:
                self._tried = steps[-1]
                await self._load(self._run / str(self._tried))
        except ChunkwireError as error:
            log.warning("step %d is not served: %s", self._tried, error.message)
        except Exception:
            log.exception("step %d is still served; the newest of %s could not be loaded", self._served, self._run)

    async def _load(self, step: Path) -> None:
        begun = time.monotonic()
        await asyncio.to_thread(self._reload, step)
        log.info("serving step %d now, loaded in %.1f s", self._served, time.monotonic() - begun)
