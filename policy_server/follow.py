"""Serving a run while it trains, or its steps one after another: a step is loaded in place, and replies name it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from policy_protocol.errors import ChunkwireError, Overloaded, StepNotServed
from policy_protocol.spec import PolicySpec
from policy_server.log import log
from policy_server.long_work import long_work
from training.pi05.checkpoint.step_directory import CheckpointInvalid, steps_in

__all__ = ["Follower", "first_step"]

_LISTED = 40
"""Most steps that an error names."""
_MOST_ASKING = 4
"""Clients that may wait while another one's step is loaded: each load changes what everybody is answered from."""


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
    """Puts steps of one run into a policy: every newer one by itself, or those that clients ask for.

    Args:
        policy: whose weights are replaced.
        run: the run's folder.
        reload: puts a step into the policy; called from another thread. Raises when the step cannot be used.
        every_s: seconds between looks.
        on_request: load what clients ask for, and nothing by itself.
    """

    def __init__(
        self,
        policy: Followed,
        run: Path,
        reload: Callable[[Path], None],
        every_s: float = 5.0,
        on_request: bool = False,
    ) -> None:
        self._policy, self._run, self._reload, self._every_s = policy, run, reload, every_s
        self.on_request = on_request
        self._tried = self._served
        self._loading = asyncio.Lock()
        self._asking = 0
        self._loads: set[asyncio.Task[PolicySpec]] = set()

    @property
    def _served(self) -> int:
        return self._policy.spec.policy.checkpoint.step

    async def follow(self) -> None:
        """Until cancelled; at once over when steps are loaded on request."""
        while not self.on_request:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Load the newest step if there is one that was not tried yet.

        Whatever goes wrong changes nothing and ends nothing: a disk may stutter, memory may be short, and the next step
        gets its own chance.
        """
        try:
            steps = await self.steps()
            if steps and steps[-1] > self._tried:
                self._tried = steps[-1]
                await self._put(self._tried)
        except ChunkwireError as error:
            log.warning("step %d is not served: %s", self._tried, error.message)
        except Exception:
            log.exception("step %d is still served; the newest of %s could not be loaded", self._served, self._run)

    async def steps(self) -> tuple[int, ...]:
        """Numbers of the complete steps that the run has now, ascending."""
        return tuple(await asyncio.to_thread(steps_in, self._run))

    async def load(self, step: int) -> PolicySpec:
        """Serve a step of the run, older or newer; returns its spec. One after another, in the order of asking.

        A client that leaves while its step waits for others is forgotten. Once loading has begun it is brought to its
        end, whoever waits.

        Raises:
            StepNotServed: there is no such step, or it cannot be used, and the one before is still served.
            Overloaded: enough clients wait for steps of theirs.
        """
        if not self.on_request:
            raise StepNotServed(
                "This server loads every newer step of its run by itself. Start it with --follow-on-request to choose."
            )
        if self._asking >= _MOST_ASKING:
            raise Overloaded(f"{_MOST_ASKING} clients wait for steps of theirs already; the server has one policy.")
        self._asking += 1
        try:
            await self._loading.acquire()
        finally:
            self._asking -= 1
        loading = asyncio.create_task(self._load(step))
        self._loads.add(loading)
        loading.add_done_callback(self._loaded)
        return await asyncio.shield(loading)

    def _loaded(self, loading: asyncio.Task[PolicySpec]) -> None:
        self._loads.discard(loading)
        if not loading.cancelled():
            loading.exception()  # is known, even where nobody waits for it any more

    async def _load(self, step: int) -> PolicySpec:
        try:
            steps = await self.steps()
            if step not in steps:
                raise StepNotServed(f"There is no complete step {step} of {self._name}. It has {_listed(steps)}.")
            try:
                if step != self._served:
                    await self._put(step)
            except ChunkwireError as error:
                raise StepNotServed(f"Step {step} cannot be served: {error.message}") from error
            except Exception as error:
                log.exception("step %d is still served; %d could not be loaded", self._served, step)
                raise StepNotServed(
                    f"Step {step} could not be loaded, and step {self._served} is still served. "
                    "The server's log has the reason."
                ) from error
            return self._policy.spec
        finally:
            self._loading.release()

    async def _put(self, step: int) -> None:
        begun = time.monotonic()
        await long_work(lambda: self._reload(self._run / str(step)))
        log.info("serving step %d now, loaded in %.1f s", self._served, time.monotonic() - begun)

    @property
    def _name(self) -> str:
        checkpoint = self._policy.spec.policy.checkpoint
        return f"{checkpoint.experiment}/{checkpoint.run}"


def _listed(steps: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, steps[-_LISTED:]))
    return f"{'… ' if len(steps) > _LISTED else ''}{shown}" if steps else "none"
