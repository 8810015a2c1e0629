"""Words and numbers as both reports write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim_client.results.run_record import RunRecord
from sim_client.results.summary import HEADLINE, Summary
from sim_client.statistics.rate import Rate

__all__ = [
    "OUTCOMES",
    "ShownRate",
    "at_end",
    "chunk_line",
    "clock_line",
    "headline",
    "milliseconds",
    "outside_by_dimension",
    "percent",
    "repetition",
    "rgb",
    "share",
    "shown_rates",
    "stage_rates",
    "step",
    "throughput_line",
    "wall_parts",
]

OUTCOMES = {
    "success": "success at one step at least",
    "failure": "the task declared it failed",
    "timeout": "the limit came first",
    "error": "infrastructure, no verdict on the policy; run the command again to repeat them",
}
"""Outcome -> what it means."""


@dataclass(frozen=True)
class ShownRate:
    """A rate as a reader sees it."""

    name: str
    rate: Rate
    interval: tuple[float, float]
    """95%."""
    long_name: str = ""
    method: str = ""
    """Of the interval, where it is not Wilson's."""

    def __str__(self) -> str:
        """`7/20 = 35% [18%, 57%]`, and the method where it is not Wilson's."""
        if not self.method:
            return str(self.rate)
        low, high = self.interval
        return f"{str(self.rate).partition(' [')[0]} [{low:.0%}, {high:.0%}] ({self.method})"


def headline(run: RunRecord, summary: Summary) -> str:
    """The result in one line: which success, k/n, its 95% interval, and the errors if any remain."""
    errors = summary.outcomes["error"]
    text = f"{run.options.env_id}: {HEADLINE} {shown_rates(run, summary)[0]}, {at_end(run)} {summary.success_at_end}"
    if errors:
        text += f"; {errors} ended in an error (counted as failures: {summary.success_once_of_all})"
    if summary.missing:
        text += f"; {summary.missing} of {summary.planned} episodes are still to run"
    if run.sure_interval is not None:
        text += f"; stopped when sure, after {summary.planned} of {len(run.seeds)} planned episodes"
    return text


def at_end(run: RunRecord) -> str:
    """`success_at_end` with the moment that counts as the end."""
    settle = run.options.settle_steps
    return "success_at_end" if settle is None else f"success_at_end ({settle} steps after success)"


def stage_rates(summary: Summary) -> tuple[tuple[str, Rate], ...]:
    """The funnel: the task's flags in its order, then success."""
    return (*summary.stages.items(), ("success", summary.success_once))


def shown_rates(run: RunRecord, summary: Summary) -> tuple[ShownRate, ...]:
    """The headline first. Of a run that was to stop when sure, with the interval that allows for it."""
    rates = [
        ShownRate(HEADLINE, summary.success_once, summary.success_once.interval),
        ShownRate("success_at_end", summary.success_at_end, summary.success_at_end.interval, at_end(run)),
    ]
    if (anytime := summary.anytime) is not None:
        rates[0] = ShownRate(HEADLINE, summary.success_once, (anytime.low, anytime.high), method="anytime-valid")
    if summary.outcomes["error"]:
        everything = summary.success_once_of_all
        rates.append(
            ShownRate("errors as failures", everything, everything.interval, "success_once, errors as failures")
        )
    return tuple(rates)


def chunk_line(run: RunRecord) -> str:
    """How chunks became actions."""
    return str(run.options.chunk_use(run.execution_horizon))


def clock_line(summary: Summary) -> str:
    """What replies that take time on the robot's clock did; empty without such a clock."""
    if summary.held_share is None:
        return ""
    delays = ", ".join(f"{name} {value:g}" for name, value in summary.delay_steps.items())
    held = share(summary.held_share)
    return f"The robot held still for want of a chunk in {held} of the steps; a reply took {delays or 'no'} steps."


def outside_by_dimension(run: RunRecord, summary: Summary) -> dict[str, float]:
    """Name of each number of the state -> share outside the training q01 to q99; empty when it was not recorded."""
    names = [
        f"{field.name}[{place}]" if field.width > 1 else field.name
        for field in run.spec.observation.state.fields
        for place in range(field.width)
    ]
    return dict(zip(names, summary.state_outside_by_dimension, strict=False))


def wall_parts(summary: Summary) -> dict[str, tuple[str, float]]:
    """Part of the scored episodes' time -> its colour, and its seconds."""
    wall = summary.wall
    parts = {
        "physics": ("accent", wall.simulate_s),
        "rendering": ("second", wall.render_s),
        "waiting for the policy": ("third", wall.wait_s),
        "other": ("muted", summary.other_s),
    }
    return {**parts, "video": ("timeout", wall.film_s)} if wall.film_s else parts


def throughput_line(summary: Summary) -> str:
    """Episodes per minute, and of what time."""
    rate, seconds = summary.throughput.episodes_per_minute, summary.throughput.working_s
    if rate is None:
        return "Episodes per minute: unknown."
    if summary.throughput.per_worker:
        return (
            f"Episodes per minute of one worker: {rate:.1f}, over {seconds:.0f} s of all workers; errors count as none."
        )
    return f"Episodes per minute: {rate:.1f}, over {seconds:.0f} s in which at least one ran; errors count as none."


def repetition(run: RunRecord) -> tuple[str, ...]:
    """What, beside the command, makes the run the one that it was."""
    settle = run.options.settle_steps
    return (
        f"Server {run.server}, policy spec {run.spec_hash}, noise seed base {run.options.run_seed}",
        f"Simulation: {', '.join(f'{name} {value}' for name, value in vars(run.settings).items())}",
        "An episode runs to its limit."
        if settle is None
        else f"An episode ends {settle} steps after its first success or at its limit; success_at_end is judged then.",
        f"Versions: {', '.join(f'{name} {version}' for name, version in run.versions.items())}",
    )


def percent(part: float, whole: float) -> str:
    """`40%`, or `-` of nothing."""
    return f"{part / whole:.0%}" if whole else "-"


def share(value: float | None) -> str:
    """`2.0%`, or `unknown`."""
    return "unknown" if value is None else f"{value:.1%}"


def step(value: float | None) -> str:
    """`step 12`, or `-`."""
    return "-" if value is None else f"step {value:g}"


def milliseconds(value: float | None) -> str:
    """`8.0 ms`, or `-`."""
    return "-" if value is None else f"{value:.1f} ms"


def rgb(values: Sequence[float]) -> str:
    """`10, 20, 30`, or `unknown`."""
    return ", ".join(f"{value:.0f}" for value in values) or "unknown"
