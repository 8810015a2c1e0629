"""What option values are refused, in the same words and with the same exit code in every command."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sim_client.errors import InvalidOption

__all__ = ["RENDER_BACKENDS", "SIM_BACKENDS", "require_at_least", "require_choice", "require_seconds"]

RENDER_BACKENDS = ("cpu", "gpu", "none")
"""Values of `--render-backend`."""

SIM_BACKENDS = ("cpu", "gpu")
"""Values of `--sim-backend`."""


def require_at_least(flag: str, value: int, minimum: int) -> None:
    """Raises `InvalidOption` naming the flag."""
    if value < minimum:
        raise InvalidOption(f"{flag} must be at least {minimum}, not {value}.", field=flag)


def require_choice(flag: str, value: str, choices: Sequence[str]) -> None:
    """Raises `InvalidOption` naming the flag and the choices."""
    if value not in choices:
        raise InvalidOption(f"{flag} must be one of {', '.join(choices)}, not {value!r}.", field=flag)


def require_seconds(flag: str, value: float) -> None:
    """Raises `InvalidOption` naming the flag when `value` is no time to wait."""
    if not (value > 0 and math.isfinite(value)):
        raise InvalidOption(f"{flag} must be a number of seconds above 0, not {value:g}.", field=flag)
