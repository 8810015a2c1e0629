"""How a process becomes one of a run's: the flags that say so, and jax's coordination service."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax

from policy_protocol.errors import ChunkwireError
from training.parallel.noticeboard import Noticeboard
from training.parallel.processes import ALONE, Processes

__all__ = ["Membership", "MembershipInvalid", "joined"]

_HEARTBEAT_SECONDS = 60
"""Without a sign of life for so long a process counts as dead, and jax ends the others."""
_MARGIN_SECONDS = 30
"""jax aborts a process that cannot join, without a word about the flags: we are to speak first."""


class MembershipInvalid(ChunkwireError):
    """The flags that make a process one of several are incomplete or wrong, or no cluster was found."""

    code = "membership_invalid"


@dataclass(frozen=True)
class Membership:
    """What the flags say: nothing (alone), a place among several, or to ask the cluster (`detect`).

    Raises:
        MembershipInvalid: they contradict each other, or some are missing.
    """

    coordinator: str | None = None
    count: int | None = None
    index: int | None = None
    detect: bool = False
    join_timeout: int = 300
    """Seconds that the processes may take to come together."""

    def __post_init__(self) -> None:
        flags = {"--coordinator": self.coordinator, "--num-processes": self.count, "--process-id": self.index}
        missing = [flag for flag, value in flags.items() if value is None]
        if self.detect and len(missing) < len(flags):
            raise MembershipInvalid(
                f"--distributed asks the cluster for {_listed(flags)}: pass it alone, or those three."
            )
        if self.detect or len(missing) == len(flags):
            return
        if missing:
            raise MembershipInvalid(f"Several processes need {_listed(flags)} each; missing: {', '.join(missing)}.")
        self._check_values()

    def _check_values(self) -> None:
        if not re.fullmatch(r"(\[[^]]+\]|[^\s:/]+):\d{1,5}", str(self.coordinator)):
            raise MembershipInvalid(
                f"--coordinator takes HOST:PORT, a free port of the machine of process 0, not {self.coordinator!r}."
            )
        if not 0 <= int(self.index or 0) < int(self.count or 0):
            raise MembershipInvalid(
                f"--process-id is {self.index} and --num-processes is {self.count}: "
                "processes are numbered from 0 to their number less one."
            )

    @property
    def alone(self) -> bool:
        """Whether the run has this process only."""
        return self.coordinator is None and not self.detect


def _listed(flags: Iterable[str]) -> str:
    *most, last = flags
    return f"{', '.join(most)} and {last}"


@contextmanager
def joined(membership: Membership) -> Iterator[Processes]:
    """The processes of the run, once all are there; call before any device is touched.

    A process that is not alone ends if they do not come together in time, and with any error that leaves the context.

    Raises:
        MembershipInvalid: no cluster was found.
    """
    if membership.alone:
        yield ALONE
        return
    waiting = threading.Timer(membership.join_timeout, _give_up, [membership])
    waiting.daemon = True
    waiting.start()
    try:
        _initialize(membership)
    finally:
        waiting.cancel()
    board = Noticeboard()
    with Processes(board.index, board.count, board) as processes:
        processes.require_same({"--num-processes": board.count})
        jax.devices()  # waits for everybody's
        yield processes


def _initialize(membership: Membership) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours, see StopSignal
    try:
        jax.distributed.initialize(
            membership.coordinator,
            membership.count,
            membership.index,
            initialization_timeout=membership.join_timeout + _MARGIN_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            cluster_detection_method=None if membership.detect else "deactivate",
        )
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise MembershipInvalid(
            f"--distributed found no cluster that jax knows ({reason}). "
            "Pass --coordinator HOST:PORT, --num-processes and --process-id instead."
        ) from error


def _give_up(membership: Membership) -> None:
    """The main thread is inside jax, which knows no other way to stop waiting."""
    if membership.detect:
        who, advice = "The processes of the cluster's job", "See that every one of them started"
    else:
        who = f"{membership.count} processes"
        advice = "Start every one with the address of process 0, the same --num-processes and its own --process-id"
    where = "" if membership.detect else f" at {membership.coordinator}"
    print(
        f"train: {who} did not come together{where} within {membership.join_timeout} s. {advice}, "
        "see that its machine can be reached there, or give them longer (--join-timeout).",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
