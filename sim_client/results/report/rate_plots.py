"""Pictures of what the policy reached: success, outcomes, stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sim_client.results.report.canvas import COLOURS, draw, text_width
from sim_client.results.report.wording import ShownRate
from sim_client.statistics.rate import Rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["outcome_plot", "stage_plot", "success_plot"]

_ROW = 0.42
"""Inches that a row of a chart takes."""
_AXIS = 0.45


def success_plot(name: str, rates: Sequence[ShownRate]) -> str:
    """One row per rate: a dot on its interval. A rate of no episode is an interval without a dot."""

    def paint(axes: Axes) -> None:
        for row, shown in enumerate(rates):
            low, high = shown.interval
            axes.plot([low, high], [row, row], color=COLOURS["accent"], alpha=0.45, linewidth=7, solid_capstyle="butt")
            if shown.rate.value is not None:
                axes.plot([shown.rate.value], [row], "o", color=COLOURS["accent"], markersize=8, clip_on=False)
        _percent_axis(axes)
        _name_rows(axes, [shown.name for shown in rates])

    left = text_width(shown.name for shown in rates)
    return draw(name, _AXIS + _ROW * len(rates), paint, left=left, bottom=0.3)


def outcome_plot(outcomes: Mapping[str, int]) -> str:
    """One bar, divided by how the episodes ended."""

    def paint(axes: Axes) -> None:
        start = 0
        for outcome, count in outcomes.items():
            axes.barh([0], [count], left=[start], color=COLOURS[outcome], edgecolor=COLOURS["paper"], height=0.9)
            if count >= 0.06 * sum(outcomes.values()):
                axes.text(
                    start + count / 2, 0, str(count), ha="center", va="center", color=COLOURS["paper"], weight="bold"
                )
            start += count
        axes.set_xlim(0, max(start, 1))
        axes.set_axis_off()

    return draw("outcomes", 0.45, paint, left=0, bottom=0)


def stage_plot(rates: Sequence[tuple[str, Rate]]) -> str:
    """The funnel: one bar per stage with its 95% interval."""
    names = [f"{stage}  {rate.successes}/{rate.episodes}" for stage, rate in rates]

    def paint(axes: Axes) -> None:
        for row, (stage, rate) in enumerate(rates):
            colour = COLOURS["success" if stage == "success" else "accent"]
            low, high = rate.interval
            axes.barh([row], [rate.value or 0], color=colour, alpha=0.75, height=0.6)
            axes.plot([low, high], [row, row], color=COLOURS["ink"], linewidth=1.2, marker="|", markersize=7)
        _percent_axis(axes)
        _name_rows(axes, names)

    return draw("stages", _AXIS + _ROW * len(rates), paint, left=text_width(names), bottom=0.3)


def _percent_axis(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
