"""The verbs of `eval-stack` put together. Without a verb it measures."""

from __future__ import annotations

import typer

from eval_stack.commands.clean import clean_command
from eval_stack.commands.measure import measure_command

__all__ = ["app"]

app = typer.Typer(
    name="eval-stack",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    subcommand_metavar="[-- SIM-CLIENT FLAGS] | COMMAND",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(measure_command)
app.command("clean")(clean_command)
