"""Acts at a moment of a save, by what the process asks of the file system; imported by the programs beside it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable


def at(moments: list[tuple[str, str]], act: Callable[[], None]) -> None:
    """Call `act` once, before the last of these happens; each is an audit event of Python's and a pattern of the path,
    waited for one after the other."""
    left = list(moments)

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if left and event == left[0][0] and re.search(left[0][1], str(arguments[0])):
            left.pop(0)
            if not left:
                act()

    sys.addaudithook(hear)
