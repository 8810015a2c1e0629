"""The command `eval-stack`: every error becomes one message and an exit code, and every end cleans up."""

from __future__ import annotations

import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with its exit code, 130 for Ctrl-C, SIGTERM and a closed terminal."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _like_ctrl_c)
    arguments, sim_args = _at_dashes(sys.argv[1:])
    try:
        _run(arguments, sim_args)
    except KeyboardInterrupt:  # while the imports below ran
        print("eval-stack: Stopped.", file=sys.stderr)
        sys.exit(130)


def _like_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before `--`, and what after it is sim-client's."""
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def _run(arguments: list[str], sim_args: list[str]) -> None:
    from eval_stack.commands.app import app
    from policy_protocol.errors import ChunkwireError

    try:
        app(arguments, prog_name="eval-stack", obj=sim_args)
    except ChunkwireError as error:
        print(f"eval-stack: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
