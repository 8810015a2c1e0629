"""A series of evaluations from its first episode to its page, which is written however the run ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sim_client.errors import RecordsError
from sim_client.evaluation.series import Series

__all__ = ["run_and_report"]

Page = TypeVar("Page")


def run_and_report(
    series: Series, run: Callable[[], None], write: Callable[[], Page], show: Callable[[Page], None]
) -> None:
    """Run, write the page, and show what it says.

    Args:
        run: runs the series, or goes on with it.
        write: writes the page of what is finished; also after an error, for a user who looks at the folder.
        show: prints what `write` returned.

    Raises:
        IncompleteRun: not everything is finished.
        ChunkwireError: what `run` or `write` ended with.
    """
    try:
        run()
    except BaseException:
        with suppress(RecordsError):
            write()
        raise
    show(write())
    series.require_finished()
