"""`N` or `HEIGHTxWIDTH` on the command line."""

from __future__ import annotations

from sim_client.errors import InvalidOption

__all__ = ["parse_size"]


def parse_size(flag: str, text: str) -> tuple[int, int]:
    """Height and width in pixels. Raises `InvalidOption` naming `flag`."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise InvalidOption(f"{flag} must be N or HEIGHTxWIDTH in pixels, not {text!r}.", field=flag)
    return int(sides[0]), int(sides[-1])
