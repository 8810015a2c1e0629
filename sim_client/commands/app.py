"""The verbs of `sim-client` put together. Without a verb it evaluates."""

from __future__ import annotations

import typer

from sim_client.commands.collect import collect_command
from sim_client.commands.compare import compare_command
from sim_client.commands.evaluate import evaluate_command
from sim_client.commands.report import report_command
from sim_client.commands.sweep import sweep_command
from sim_client.commands.tasks import tasks_command

__all__ = ["app"]

app = typer.Typer(
    name="sim-client",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(evaluate_command)
app.command("collect")(collect_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("sweep")(sweep_command)
app.command("tasks")(tasks_command)
