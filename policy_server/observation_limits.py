"""How much structure an observation may have: looked at before anything is done with it.

A few bytes on the wire make an entry, and every entry is copied for every row of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy_protocol.errors import InvalidObservation

__all__ = ["require_modest"]

MOST_ENTRIES = 1_000
"""Of an observation, those of maps inside it included. The largest robots of openpi send about twenty."""
MOST_DEPTH = 8
"""Of maps in maps; openpi's ALOHA has two."""
MOST_KEY_LENGTH = 200


def require_modest(observation: Mapping[str, Any]) -> None:
    """Raises `InvalidObservation` for more entries, depth or text in a key than any robot has."""
    entries = 0
    level: list[Mapping[str, Any]] = [observation]
    for _ in range(MOST_DEPTH):
        entries += sum(map(len, level))
        if entries > MOST_ENTRIES:
            raise InvalidObservation(f"The observation has more than {MOST_ENTRIES:,} entries. Send the policy's own.")
        if any(len(key) > MOST_KEY_LENGTH for part in level for key in part if isinstance(key, str)):
            raise InvalidObservation(f"The observation has a key of more than {MOST_KEY_LENGTH} characters.")
        level = [value for part in level for value in part.values() if isinstance(value, Mapping)]
        if not level:
            return
    raise InvalidObservation(f"The observation has maps in maps more than {MOST_DEPTH} deep.")
