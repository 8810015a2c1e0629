"""The command `sim-client`. Without a verb it evaluates; every error becomes one message and an exit code."""

from __future__ import annotations

import sys

import typer

from policy_protocol.errors import ChunkwireError
from sim_client.commands.collect import collect_command
from sim_client.commands.evaluate import evaluate_command
from sim_client.commands.report import report_command
from sim_client.commands.tasks import tasks_command

__all__ = ["app", "main"]

app = typer.Typer(
    name="sim-client",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(evaluate_command)
app.command("collect")(collect_command)
app.command("report")(report_command)
app.command("tasks")(tasks_command)


def main() -> None:
    """Run the command line and end the process with its exit code; typer makes 130 of Ctrl-C."""
    try:
        app(prog_name="sim-client")
    except ChunkwireError as error:
        print(f"sim-client: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
