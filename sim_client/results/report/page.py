"""From a template to a page. Every value is escaped; only our own drawings are markup."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sim_client.results.report.wording import milliseconds, percent, rgb, share, step

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]


def render(template: str, *, plots: dict[str, str], **values: Any) -> str:
    """The text of one page.

    Args:
        template: file in `templates/`.
        plots: name -> SVG element, made by `canvas.draw`.
        values: what the template names.
    """
    from markupsafe import Markup

    drawings = {name: Markup(svg) for name, svg in plots.items()}  # matplotlib escapes the text in them
    return _environment().get_template(template).render(plots=drawings, **values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sim_client.results.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(milliseconds=milliseconds, percent=percent, rgb=rgb, share=share, step=step)
    return environment
