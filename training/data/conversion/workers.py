"""Prepares episodes in several processes; their results come in the order of the episodes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from training.data.conversion.episode_parts import PartJob, prepare_part
from training.data.errors import ConversionStopped

__all__ = ["prepare_in_order"]


@contextmanager
def prepare_in_order(jobs: Sequence[PartJob], workers: int) -> Iterator[Iterator[Path]]:
    """The files of the prepared episodes, each as soon as it and those before it are finished.

    Processes rather than threads: HDF5 reads and unpacks under one lock.

    Raises:
        ConversionStopped: a worker was killed.
        DemonstrationsInvalid: as `prepare_part`.
    """
    todo = sum(not job.part.exists() for job in jobs)
    if min(workers, todo) <= 1:
        yield map(prepare_part, jobs)
        return
    # Spawned, not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, todo), mp_context=context, initializer=_end_with_parent)
    try:
        yield pool.map(prepare_part, jobs)
    except BrokenProcessPool as error:
        raise ConversionStopped(
            "A worker process died, most likely for want of memory. Episodes that are finished are kept: run the same "
            "command again, with fewer --workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose conversion was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
