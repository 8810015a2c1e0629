"""The directory of one evaluation: `run.json`, `episodes.jsonl`, the report, and a lock while a run writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sim_client.episode.record import EpisodeRecord
from sim_client.results.layout import EPISODES, REPORT, RUN
from sim_client.results.mismatch import Mismatch
from sim_client.results.opening import begin, delete_results, lock_results, require_no_strangers
from sim_client.results.records import EpisodeFile, final_records, read_records
from sim_client.results.run_record import RunRecord

__all__ = ["ResultsDirectory", "default_directory", "evaluations_in", "read_results", "report_path"]


def default_directory(run: RunRecord) -> Path:
    """`results/<env>/<experiment>-<run>-<step>-seed<seed>`."""
    checkpoint = run.spec.policy.checkpoint
    name = f"{checkpoint.experiment}-{checkpoint.run}-{checkpoint.step}-seed{run.options.seed}"
    return Path("results") / run.options.env_id / name.replace(os.sep, "-")


def report_path(directory: Path) -> Path:
    """Where the Markdown report of the evaluation in `directory` belongs."""
    return directory / REPORT


def evaluations_in(folder: Path) -> tuple[Path, ...]:
    """The results directories that lie right in `folder`, by name; none where it is one itself, or no folder."""
    if (folder / RUN).exists() or not folder.is_dir():
        return ()
    return tuple(sorted(entry for entry in folder.iterdir() if (entry / RUN).exists()))


def read_results(path: Path) -> tuple[RunRecord, tuple[EpisodeRecord, ...]]:
    """The run, and one final record per finished episode of its list.

    Raises:
        RecordsError: there is no evaluation in `path`, or its files are damaged.
    """
    run = RunRecord.read(path / RUN)
    records = final_records(read_records(path / EPISODES))
    counted = set(run.counted_seeds)
    return run, tuple(record for record in records if record.seed in counted)


class ResultsDirectory:
    """The results of one run, locked against a second process until `close`.

    A directory that holds the same run already is continued; what is finished stays finished.

    Args:
        path: made if it does not exist.
        run: what is about to be run.
        overwrite: begin anew, deleting the results that are there.

    Raises:
        RecordsError: another process writes here, or the directory holds another run or other files.
    """

    def __init__(self, path: Path, run: RunRecord, *, overwrite: bool = False) -> None:
        self.path = path
        require_no_strangers(path)
        self._lock = lock_results(path)
        try:
            if overwrite:
                delete_results(path)
            self.run = begin(path, run)
            self._file = EpisodeFile(path / EPISODES)
        except BaseException:
            self._lock.close()
            raise

    def records(self) -> tuple[EpisodeRecord, ...]:
        """One final record per finished episode, ordered by index."""
        return read_results(self.path)[1]

    def remaining(self) -> tuple[tuple[int, int], ...]:
        """(index, seed) of the episodes that have no result yet.

        Those that ended in an error count as such, and come last: whatever broke them may break the next one too.
        """
        outcomes = {record.seed: record.outcome for record in self.records()}
        left = [
            (index, seed) for index, seed in enumerate(self.run.counted_seeds) if outcomes.get(seed, "error") == "error"
        ]
        return tuple(sorted(left, key=lambda one: one[1] in outcomes))

    def is_complete(self) -> bool:
        """Whether every episode has a result by now."""
        return not self.remaining()

    def note_mismatches(self, found: Sequence[Mismatch]) -> None:
        """Add what the built simulator does otherwise than training, allowed by name, to `run.json`."""
        with self._changing():
            known = {mismatch.field for mismatch in self.run.mismatches}
            new = tuple(mismatch for mismatch in found if mismatch.field not in known)
            if new:
                self.run = replace(self.run, mismatches=(*self.run.mismatches, *new))
                self.run.write(self.path / RUN)

    def stop_after(self, count: int, interval: tuple[float, float]) -> None:
        """Note in `run.json` that the first `count` episodes are enough."""
        with self._changing():
            if self.run.stopped_after != count:
                self.run = replace(self.run, stopped_after=count, sure_interval=interval)
                self.run.write(self.path / RUN)

    def append(self, record: EpisodeRecord) -> None:
        """Store one episode. Raises `RecordsError` when the disk is full."""
        self._file.append(record)

    def others(self) -> tuple[str, ...]:
        """Names of the other processes that work on the same list: none, it is locked."""
        return ()

    def close(self) -> None:
        """Close the files and release the lock."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> ResultsDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """While `run.json` is changed."""
        yield
