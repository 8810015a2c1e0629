"""Where the steps of a training run are served: by one server that loads them on request, or by one server each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from policy_protocol.errors import SpecMismatch
from policy_protocol.spec import CheckpointId
from sim_client.errors import InvalidOption
from sim_client.evaluation.dial import Dial
from sim_client.option_checks import require_at_least
from sim_client.policy_client import PolicyClient

__all__ = ["Checkpoints", "FollowingServer", "ServerPerStep", "choose_steps", "parse_servers", "parse_steps"]


class Checkpoints(Protocol):
    """The served steps of one training run."""

    @property
    def steps(self) -> tuple[int, ...]:
        """That can be had, ascending."""
        ...

    def at(self, step: int) -> tuple[Dial, CheckpointId]:
        """Have a step served: a dial that only reaches it, and what it is."""
        ...


class FollowingServer:
    """One server, started with `serve --follow RUN --follow-on-request`.

    Args:
        client: connected to it; stays the caller's to close.
        dial: how workers reach it.
    """

    def __init__(self, client: PolicyClient, dial: Dial) -> None:
        self._client, self._dial = client, dial

    @property
    def steps(self) -> tuple[int, ...]:
        """Raises `StepNotServed`: the server loads no steps on request."""
        return self._client.steps()

    def at(self, step: int) -> tuple[Dial, CheckpointId]:
        """Raises what `PolicyClient.load_step` does."""
        checkpoint = self._client.load_step(step)
        return replace(self._dial, spec_hash=self._client.spec.hash), checkpoint


class ServerPerStep:
    """A server for each step.

    Args:
        servers: step -> address.
        dial: the terms, for all.
    """

    def __init__(self, servers: Mapping[int, str], dial: Dial) -> None:
        self._servers, self._dial = servers, dial

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted(self._servers))

    def at(self, step: int) -> tuple[Dial, CheckpointId]:
        """Raises `SpecMismatch`: another step is served there."""
        dial = replace(self._dial, servers=self._servers[step])
        with dial.connect() as policy:
            spec = policy.spec
        if spec.policy.checkpoint.step != step:
            raise SpecMismatch(
                f"--servers {step}={self._servers[step]}: {spec.policy.checkpoint} is served there, which is step "
                f"{spec.policy.checkpoint.step}."
            )
        return replace(dial, spec_hash=spec.hash), spec.policy.checkpoint


def parse_servers(text: str) -> dict[int, str]:
    """`1000=ws://a:8000,2000=ws://b:8000` -> step -> address. Raises `InvalidOption`."""
    servers: dict[int, str] = {}
    for part in text.split(","):
        step, equals, address = part.strip().partition("=")
        if not (equals and step.isdecimal() and address):
            raise InvalidOption(
                "--servers must be STEP=URL pairs with commas between them, such as 1000=ws://a:8000,2000=ws://b:8000; "
                f"{part.strip()!r} is none.",
                field="--servers",
            )
        if int(step) in servers:
            raise InvalidOption(f"--servers names step {int(step)} twice. Name one server for it.", field="--servers")
        servers[int(step)] = address
    return servers


def parse_steps(text: str) -> tuple[int, ...]:
    """`1000,2000` -> the steps, ascending, each once. Raises `InvalidOption`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InvalidOption(
            f"--steps must be step numbers with commas between them, such as 1000,2000, not {text!r}.", field="--steps"
        )
    return tuple(sorted(set(map(int, parts))))


def choose_steps(there: Sequence[int], steps: Sequence[int] | None, every: int | None) -> tuple[int, ...]:
    """Of the steps that are there, those to measure, ascending.

    Args:
        steps: exactly these; all by default.
        every: instead, the first one, each that is at least so many training steps after the one before, and the last:
            the choice stays the same while the run goes on.

    Raises:
        InvalidOption: a step is not there, or both are given.
    """
    if steps is not None and every is not None:
        raise InvalidOption("--steps and --every both choose steps. Pass one of them.", field="--every")
    if steps is not None:
        if missing := [step for step in steps if step not in there]:
            raise InvalidOption(
                f"--steps {','.join(map(str, missing))}: not among the steps that are served, "
                f"{', '.join(map(str, there)) or 'of which there are none'}.",
                field="--steps",
            )
        return tuple(steps)
    return _spaced(there, 1 if every is None else every)


def _spaced(there: Sequence[int], every: int) -> tuple[int, ...]:
    require_at_least("--every", every, 1)
    chosen: list[int] = []
    for step in there:
        if not chosen or step - chosen[-1] >= every or step == there[-1]:
            chosen.append(step)
    return tuple(chosen)
