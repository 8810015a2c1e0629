"""`serve`: a policy behind a WebSocket, and the verbs around it."""

from __future__ import annotations

import sys

import typer

from policy_protocol.errors import ChunkwireError
from policy_server.commands.bench import bench_command
from policy_server.commands.describe import describe_command
from policy_server.commands.serve import serve_command
from policy_server.log import log

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, subcommand_metavar="[VERB …]"
)

app.callback(invoke_without_command=True)(serve_command)
app.command("describe")(describe_command)
app.command("bench")(bench_command)


def main() -> None:
    """Entry point: errors become one plain line and an exit code."""
    # Reads of a damaged checkpoint outlive their failed restore and report here, from other threads.
    sys.unraisablehook = lambda unraisable: log.debug("in the background: %r", unraisable.exc_value)
    try:
        app()
    except ChunkwireError as error:
        print(f"serve: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
