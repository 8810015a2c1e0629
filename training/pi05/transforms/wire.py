"""What an observation holds under a wire key, or under the path into nested maps that the key spells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from policy_protocol.errors import InvalidObservation
from policy_protocol.messages import Observation

__all__ = ["array_of", "missing", "value_at"]


def value_at(observation: Observation, key: str) -> Any:
    """The value of `images/cam_high`, flat or nested; None when there is none."""
    if key in observation:
        return observation[key]
    value: Any = observation
    for name in key.split("/"):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def missing(observation: Observation, key: str, expected: str) -> InvalidObservation:
    """The error for an absent key: what was expected, and what there is."""
    held = ", ".join(sorted(_keys(observation))) or "nothing"
    return InvalidObservation(f"The observation lacks {key!r}: {expected}. It holds: {held}.", field=key)


def _keys(observation: Mapping[Any, Any]) -> Iterator[str]:
    for key, value in observation.items():
        if isinstance(value, Mapping):
            yield from (f"{key}/{name}" for name in _keys(value))
        else:
            yield str(key)


def array_of(value: object, key: str) -> np.ndarray:
    """The value as an array. Raises `InvalidObservation` for ragged lists, and for lists that hold text."""
    if isinstance(value, list | tuple) and _holds_text(
        value
    ):  # numpy would pad every text to the longest of them, however many there are
        raise InvalidObservation(f"{key} holds text where numbers are expected.", field=key)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InvalidObservation(f"{key} is no array: {error}.", field=key) from error


def _holds_text(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_text, value))
    return isinstance(value, str | bytes)
