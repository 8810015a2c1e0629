"""Pictures of how far the episodes were from the training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from sim_client.episode.record import EpisodeRecord, Outcome
from sim_client.results.report.canvas import COLOURS, draw, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["EXPECTED_OUTSIDE", "dimension_plot", "episode_drift_plot"]

EXPECTED_OUTSIDE = 0.02
"""Share of the training data itself that lies outside its q01 to q99."""


def episode_drift_plot(records: Sequence[EpisodeRecord]) -> str:
    """Share of state numbers outside q01 to q99, a dot per episode, coloured by outcome."""

    def paint(axes: Axes) -> None:
        for outcome in get_args(Outcome):
            those = [record for record in records if record.outcome == outcome]
            if not those:
                continue
            axes.plot(
                [record.index + 1 for record in those],
                [record.state_outside_share for record in those],
                "o",
                color=COLOURS[outcome],
                markersize=4.5,
                alpha=0.85,
                label=outcome,
            )
        axes.axhline(EXPECTED_OUTSIDE, color=COLOURS["ink"], linewidth=1.1, linestyle="dashed", label="expected (2%)")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("episode", color=COLOURS["muted"])
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="lower left", ncols=2, fontsize=9)

    return draw("drift", 2.9, paint, bottom=0.95)


def dimension_plot(shares: Mapping[str, float]) -> str:
    """Share of the numbers of each state dimension that lay outside its training q01 to q99."""

    def paint(axes: Axes) -> None:
        rows = range(len(shares))
        axes.barh(rows, list(shares.values()), color=COLOURS["accent"], alpha=0.75, height=0.6)
        axes.axvline(EXPECTED_OUTSIDE, color=COLOURS["ink"], linewidth=1.1, linestyle="dashed")
        axes.set_yticks(rows, list(shares))
        axes.set_ylim(len(shares) - 0.5, -0.5)
        axes.set_xlim(0, max(0.05, 1.05 * max(shares.values())))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.grid(visible=False, axis="y")

    return draw("dimensions", 0.5 + 0.24 * len(shares), paint, left=text_width(shares), bottom=0.3)
