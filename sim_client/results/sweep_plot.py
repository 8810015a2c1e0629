"""Success over training steps with its intervals, and the training loss below on the same axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim_client.results.report.canvas import COLOURS, draw
from sim_client.results.sweep_curve import SweepCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["sweep_plot"]

_SUCCESS, _LOSS, _GAP, _BELOW = 2.4, 1.3, 0.25, 0.5
"""Inches: the two panels, between them, and below for the axis."""


def sweep_plot(curve: SweepCurve) -> str:
    """One figure with one axis of steps; without a known loss the upper panel alone."""
    if not curve.loss.points:
        return draw("sweep", _SUCCESS + _BELOW, lambda axes: _alone(axes, curve), bottom=_BELOW, left=0.7)
    bottom = _BELOW + _LOSS + _GAP
    return draw("sweep", _SUCCESS + bottom, lambda axes: _above_loss(axes, curve), bottom=bottom, left=0.7)


def _alone(axes: Axes, curve: SweepCurve) -> None:
    _success(axes, curve)
    _steps(axes)


def _above_loss(axes: Axes, curve: SweepCurve) -> None:
    _success(axes, curve)
    axes.tick_params(axis="x", labelbottom=False)
    place, inches = axes.get_position(), axes.figure.get_size_inches()[1]
    lower = axes.figure.add_axes((place.x0, _BELOW / inches, place.width, _LOSS / inches), sharex=axes)
    steps, losses = zip(*curve.loss.points, strict=True)
    lower.plot(steps, losses, color=COLOURS["second"], linewidth=0.8, alpha=0.45)
    known = [(point.step, point.loss) for point in curve.points if point.loss is not None]
    lower.plot(*zip(*known, strict=True), "o-", color=COLOURS["second"], markersize=5, linewidth=1.4)
    lower.set_ylabel("training loss", color=COLOURS["muted"])
    _steps(lower)


def _success(axes: Axes, curve: SweepCurve) -> None:
    for point in curve.points:
        low, high = point.success.interval
        axes.plot([point.step] * 2, [low, high], color=COLOURS["accent"], alpha=0.45, linewidth=5)
    scored = [(point.step, point.success.rate.value) for point in curve.points if point.success.rate.episodes]
    if scored:
        axes.plot(*zip(*scored, strict=True), "o-", color=COLOURS["accent"], markersize=7, linewidth=1.2, clip_on=False)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_ylabel("success_once", color=COLOURS["muted"])


def _steps(axes: Axes) -> None:
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.set_xlabel("training step", color=COLOURS["muted"])
