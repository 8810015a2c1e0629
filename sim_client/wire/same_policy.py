"""Whether servers serve one and the same policy: actions of two must not be mixed in one measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from policy_protocol import PolicySpec
from policy_protocol.errors import SpecMismatch
from sim_client.wire.link import Greeting

__all__ = ["differences", "require_same"]

_SHOWN = 3


def require_same(first_url: str, first: Greeting, url: str, greeting: Greeting, any_step: bool = False) -> None:
    """Compare a server's spec with that of the one that answered first.

    Args:
        any_step: other steps of the same run are the same policy.

    Raises:
        SpecMismatch: they differ; names the fields.
    """
    expected, found = first.spec.hash, greeting.spec.hash
    if found == expected or (any_step and _at_step_of(first.spec, greeting.spec).hash == expected):
        return
    fields = differences(first.spec, greeting.spec)
    if url == first_url:
        what = f"The policy server at {url} now serves another policy"
        advice = "Serve the first one again, or start anew with this one."
    else:
        what = f"The policy server at {url} serves another policy than {first_url}"
        advice = "Every server of --server must serve the same checkpoint."
    raise SpecMismatch(
        f"{what} ({greeting.spec.policy.checkpoint}, spec {found} instead of {expected}): {fields}. {advice}"
    )


def differences(first: PolicySpec, other: PolicySpec) -> str:
    """The first few fields in which two specs differ, with both values; empty when they do not."""
    return "; ".join(islice(_differences(first.to_wire(), other.to_wire()), _SHOWN))


def _at_step_of(first: PolicySpec, spec: PolicySpec) -> PolicySpec:
    checkpoint = replace(spec.policy.checkpoint, step=first.policy.checkpoint.step)
    return replace(spec, policy=replace(spec.policy, checkpoint=checkpoint))


def _differences(first: Any, other: Any, path: str = "") -> Iterator[str]:
    if isinstance(first, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys((*first, *other)):
            yield from _differences(first.get(name), other.get(name), f"{path}.{name}" if path else str(name))
    elif first != other:
        yield f"{path} is {_short(other)}, not {_short(first)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
