"""How much structure an observation may have: looked at before anything is done with it.

A few bytes on the wire make an entry, and every entry is copied for every row of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from policy_protocol.errors import InvalidObservation

__all__ = ["Container", "require_modest"]

MOST_ENTRIES = 1_000
"""Of a row, those of maps and lists inside it included. The largest robots of openpi send about twenty."""
MOST_ENTRIES_IN_ALL = 50_000
"""Of all rows: each is looked at and copied on the event loop, which takes a quarter of a second for a million."""
MOST_DEPTH = 8
"""Of maps and lists in each other; openpi's ALOHA has two."""
MOST_KEY_LENGTH = 200

Container: TypeAlias = Mapping[str, Any] | Sequence[Any]
"""A map or a list."""


def _itself(value: Any) -> Container | None:
    return value if isinstance(value, (Mapping, list)) else None


def require_modest(
    observation: Mapping[str, Any], rows: int = 1, inside: Callable[[Any], Container | None] = _itself
) -> None:
    """Raises `InvalidObservation` for more entries, depth or text in a key than any robot has.

    Args:
        rows: of the request. An entry of a map is in each of them, an item of a list in one.
        inside: the map or the list that a value holds, None for a value that holds neither.
    """
    items = 0
    level: list[tuple[Container, int]] = [(observation, rows)]
    for _ in range(MOST_DEPTH):
        items += sum(len(part) * times for part, times in level)
        if items > MOST_ENTRIES * rows:
            raise InvalidObservation(f"The observation has more than {MOST_ENTRIES:,} entries. Send the policy's own.")
        if items > MOST_ENTRIES_IN_ALL:
            raise InvalidObservation(
                f"The {rows} observations have more than {MOST_ENTRIES_IN_ALL:,} entries in all. "
                "Send the policy's own, or fewer rows."
            )
        if any(len(key) > MOST_KEY_LENGTH for part, _ in level for key in _keys(part)):
            raise InvalidObservation(f"The observation has a key of more than {MOST_KEY_LENGTH} characters.")
        level = [inner for part, times in level for inner in _inner(part, times, inside)]
        if not level:
            return
    raise InvalidObservation(f"The observation has maps and lists in each other more than {MOST_DEPTH} deep.")


def _keys(part: Container) -> Iterator[str]:
    return (key for key in part if isinstance(key, str)) if isinstance(part, Mapping) else iter(())


def _inner(part: Container, times: int, inside: Callable[[Any], Container | None]) -> Iterator[tuple[Container, int]]:
    for value in part.values() if isinstance(part, Mapping) else part:
        if (inner := inside(value)) is not None:
            yield inner, times if isinstance(inner, Mapping) else 1
