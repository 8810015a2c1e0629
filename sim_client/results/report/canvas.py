"""A matplotlib figure that becomes part of a page: inline SVG in the page's own colours and fonts.

Figures are drawn in placeholder colours which are replaced by the page's CSS variables, so that one drawing is
readable on a light screen, a dark one and on paper. Text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "draw", "text_width"]

_RIGHT, _TOP = 0.15, 0.08
"""Inches beside and above the axes."""
WIDTH = 5.0
"""Inches. At 72 points an inch about the width of a phone, where the text must stay readable."""

_NAMES = (
    "ink",
    "muted",
    "line",
    "paper",
    "success",
    "failure",
    "timeout",
    "error",
    "accent",
    "second",
    "third",
)
COLOURS = {name: f"#0f{index:02x}f0" for index, name in enumerate(_NAMES)}
"""CSS variable of the page -> the placeholder to draw it with."""

_STYLE = {
    "axes.edgecolor": COLOURS["line"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 10,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": COLOURS["ink"],
    "text.color": COLOURS["ink"],
    "text.parse_math": False,  # a dollar sign in a task's name is a dollar sign
    "xtick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.color": COLOURS["line"],
    "ytick.labelcolor": COLOURS["ink"],
    "ytick.left": False,
    "svg.fonttype": "none",
}


def draw(
    name: str,
    height: float,
    paint: Callable[[Axes], None],
    *,
    left: float = 0.55,
    bottom: float = 0.5,
) -> str:
    """The SVG element of one figure; the same data gives the same text.

    Args:
        name: unlike that of any other figure on the page.
        height: inches, margins included. Those are given, for measuring what stands in them takes most of the time.
        paint: draws into the empty axes, in `COLOURS`.
        left: inches beside the axes, for the names of rows.
        bottom: inches below the axes.
    """
    import matplotlib  # together with the figure 1 s that `--help` need not wait for
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_defaults(), **_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height))
        inner = (WIDTH - left - _RIGHT, height - bottom - _TOP)
        paint(figure.add_axes((left / WIDTH, bottom / height, inner[0] / WIDTH, inner[1] / height)))
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(file.getvalue(), name)


def text_width(texts: Iterable[str]) -> float:
    """Inches that the longest of these row names may take in whatever font the page has."""
    return 0.2 + 0.082 * max(map(len, texts), default=0)


def _defaults() -> dict[str, object]:
    """Matplotlib's own look, whatever the user's `matplotlibrc` says."""
    import matplotlib

    return {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}


def _inline(document: str, name: str) -> str:
    """Of an SVG document the element alone, without fonts, fixed size, and names that other figures have too."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", svg, count=3)
    svg = re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg aria-hidden="true"', svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    for variable, placeholder in COLOURS.items():
        svg = svg.replace(placeholder, f"var(--{variable})")
    return svg.strip()
