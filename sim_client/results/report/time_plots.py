"""Pictures of steps, milliseconds and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim_client.results.report.canvas import COLOURS, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["latency_plot", "length_plot", "wall_plot"]


def length_plot(lengths: Mapping[str, Sequence[int]], marks: Mapping[str, float]) -> str:
    """Histogram of the episode length, stacked by outcome.

    Args:
        lengths: outcome -> steps of its episodes.
        marks: label -> step at which a line is drawn.
    """
    present = {outcome: steps for outcome, steps in lengths.items() if len(steps)}
    longest = max([1, *marks.values(), *(max(steps) for steps in present.values())])
    edges = np.linspace(0, longest + 1, 31)

    def paint(axes: Axes) -> None:
        colours = [COLOURS[outcome] for outcome in present]
        axes.hist(
            list(present.values()), bins=edges, stacked=True, histtype="stepfilled", color=colours, label=list(present)
        )
        for position, (label, step) in enumerate(sorted(marks.items(), key=lambda mark: mark[1])):
            style = ("dotted", "dashed", "dashdot", "solid")[position % 4]
            axes.axvline(step, color=COLOURS["ink"], linewidth=1.1, linestyle=style, label=f"{label} ({step:g})")
        _count_axis(axes, "episodes")
        axes.set_xlabel("steps", color=COLOURS["muted"])
        _legend_below(axes)

    return draw("lengths", 3.2, paint, bottom=1.35)


def latency_plot(milliseconds: Mapping[str, Sequence[float]]) -> str:
    """Histograms of time per request on a logarithmic axis, that of the slowest included; p50 and p95 are marked."""
    present = {name: np.maximum(values, 0.01) for name, values in milliseconds.items() if len(values)}
    everything = np.concatenate(list(present.values()))
    edges = np.geomspace(everything.min() * 0.9, everything.max() * 1.1, 41)

    def paint(axes: Axes) -> None:
        for (name, values), colour in zip(present.items(), ("accent", "second"), strict=False):
            axes.hist(values, bins=edges, histtype="stepfilled", color=COLOURS[colour], alpha=0.55, label=name)
            for share, style in ((0.5, "solid"), (0.95, "dashed")):
                value = float(np.quantile(values, share))
                text = f"{name} p{share * 100:.0f} ({value:.1f} ms)"
                axes.axvline(value, color=COLOURS[colour], linestyle=style, linewidth=1.4, label=text)
        _logarithmic_axis(axes, float(edges[0]), float(edges[-1]))
        _count_axis(axes, "requests")
        axes.set_xlabel("milliseconds, logarithmic", color=COLOURS["muted"])
        _legend_below(axes)

    return draw("latency", 3.2, paint, bottom=1.15)


def wall_plot(seconds: Mapping[str, tuple[str, float]]) -> str:
    """One bar of all seconds, divided by what they went into: name -> colour and seconds."""

    def paint(axes: Axes) -> None:
        start = 0.0
        for colour, part in seconds.values():
            axes.barh([0], [part], left=[start], color=COLOURS[colour], edgecolor=COLOURS["paper"], height=0.9)
            start += part
        axes.set_xlim(0, start)
        axes.set_axis_off()

    return draw("wall", 0.45, paint, left=0, bottom=0)


def _count_axis(axes: Axes, of: str) -> None:
    axes.set_ylabel(of, color=COLOURS["muted"])
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(visible=False, axis="x")


def _logarithmic_axis(axes: Axes, low: float, high: float) -> None:
    """Ticks at 1, 2 and 5 times the powers of ten, written as plain numbers."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _legend_below(axes: Axes) -> None:
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="lower left", ncols=2, fontsize=9)
