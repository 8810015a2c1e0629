"""`eval-stack clean`: remove what crashed runs left."""

from __future__ import annotations

from eval_stack.engine import connected
from eval_stack.leftovers import find_leftovers

__all__ = ["clean_command"]


def clean_command() -> None:
    """Remove containers and networks of runs of this host that crashed, were killed, or were told to --keep them.

    What a living run needs stays, and so do results and the volume of compiled programs.
    """
    with connected() as engine:
        leftovers = find_leftovers(engine)
        leftovers.remove()
    if leftovers.names:
        print(f"Removed {', '.join(leftovers.names)}.")
    else:
        print("Nothing is left of earlier runs.")
