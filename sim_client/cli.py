"""The command `sim-client`: every error becomes one message and an exit code, from the first moment on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["main"]


def main(open_environment: Callable[[Any], Any] | None = None) -> None:
    """Run the command line and end the process with its exit code, 130 for Ctrl-C and for SIGTERM.

    Args:
        open_environment: builds the simulator of an evaluation from its settings; ManiSkill's by default.
    """
    signal.signal(signal.SIGTERM, _like_ctrl_c)  # what a container gets; its first process dies of nothing by default
    try:
        _run(open_environment)
    except KeyboardInterrupt:  # while the imports below ran; later, typer makes 130 of it
        print("sim-client: Stopped.", file=sys.stderr)
        sys.exit(130)


def _like_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(open_environment: Callable[[Any], Any] | None) -> None:
    from policy_protocol.errors import ChunkwireError
    from sim_client.commands.app import app

    try:
        app(prog_name="sim-client", obj=open_environment)
    except ChunkwireError as error:
        print(f"sim-client: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
