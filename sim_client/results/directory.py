"""The directory of one evaluation: `run.json`, `episodes.jsonl`, the report, and a lock while a run writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from sim_client.episode.observation_log import OBSERVATIONS
from sim_client.episode.record import EpisodeRecord
from sim_client.episode.video import VIDEOS
from sim_client.errors import RecordsError
from sim_client.files import LOCK, FolderInUse, is_draft, lock_folder
from sim_client.results.mismatch import Mismatch
from sim_client.results.records import EpisodeFile, final_records, read_records
from sim_client.results.run_record import RunRecord

__all__ = ["ResultsDirectory", "default_directory", "evaluations_in", "read_results", "report_path"]

_RUN, _EPISODES, _REPORT, _PAGE = "run.json", "episodes.jsonl", "report.md", "report.html"


def default_directory(run: RunRecord) -> Path:
    """`results/<env>/<experiment>-<run>-<step>-seed<seed>`."""
    checkpoint = run.spec.policy.checkpoint
    name = f"{checkpoint.experiment}-{checkpoint.run}-{checkpoint.step}-seed{run.options.seed}"
    return Path("results") / run.options.env_id / name.replace(os.sep, "-")


def report_path(directory: Path) -> Path:
    """Where the Markdown report of the evaluation in `directory` belongs."""
    return directory / _REPORT


def evaluations_in(folder: Path) -> tuple[Path, ...]:
    """The results directories that lie right in `folder`, by name; none where it is one itself, or no folder."""
    if (folder / _RUN).exists() or not folder.is_dir():
        return ()
    return tuple(sorted(entry for entry in folder.iterdir() if (entry / _RUN).exists()))


def read_results(path: Path) -> tuple[RunRecord, tuple[EpisodeRecord, ...]]:
    """The run, and one final record per finished episode of its list.

    Raises:
        RecordsError: there is no evaluation in `path`, or its files are damaged.
    """
    run = RunRecord.read(path / _RUN)
    records = final_records(read_records(path / _EPISODES))
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
        _require_no_strangers(path)
        self._lock = _lock(path)
        try:
            if overwrite:
                _delete_results(path)
            self.run = self._begin(run)
            self._file = EpisodeFile(path / _EPISODES)
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

    def note_mismatches(self, found: Sequence[Mismatch]) -> None:
        """Add what the built simulator does otherwise than training, allowed by name, to `run.json`."""
        known = {mismatch.field for mismatch in self.run.mismatches}
        new = tuple(mismatch for mismatch in found if mismatch.field not in known)
        if new:
            self.run = replace(self.run, mismatches=(*self.run.mismatches, *new))
            self.run.write(self.path / _RUN)

    def stop_after(self, count: int, interval: tuple[float, float]) -> None:
        """Note in `run.json` that the first `count` episodes are enough."""
        if self.run.stopped_after != count:
            self.run = replace(self.run, stopped_after=count, sure_interval=interval)
            self.run.write(self.path / _RUN)

    def append(self, record: EpisodeRecord) -> None:
        """Store one episode. Raises `RecordsError` when the disk is full."""
        self._file.append(record)

    def close(self) -> None:
        """Close the files and release the lock."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> ResultsDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, run: RunRecord) -> RunRecord:
        """Continue the run that has episodes here; one that has none, stopped while setting up, leaves no trace."""
        path = self.path / _RUN
        if read_records(self.path / _EPISODES):
            run = _continued(_read_run(path), run, self.path)
        run.write(path)
        return run


def _read_run(path: Path) -> RunRecord:
    if not path.exists():
        raise RecordsError(
            f"{path.parent} holds episodes but no {_RUN} that says what they are. "
            "Pass --overwrite to delete them, or --out with another directory."
        )
    return RunRecord.read(path)


def _continued(old: RunRecord, new: RunRecord, path: Path) -> RunRecord:
    if differences := old.differences(new):
        lines = "\n".join(f"  {line}" for line in differences)
        raise RecordsError(
            f"{path} holds the results of another run:\n{lines}\n"
            "Pass --out DIR for a run of its own, or --overwrite to delete the results that are there."
        )
    return old.continued_by(new)


def _lock(path: Path) -> IO[str]:
    try:
        return lock_folder(path)
    except FolderInUse as error:
        raise RecordsError(
            f"Another process (id {error.owner}) is writing to {path}. Wait for it, stop it, or pass another --out."
        ) from error
    except OSError as error:
        raise RecordsError(f"--out {path} cannot be used: {error.strerror or error}.") from error


def _require_no_strangers(path: Path) -> None:
    """Refuse a directory that is used for something else, before anything is written to it."""
    if not path.is_dir() or (path / _RUN).exists() or (path / _EPISODES).exists():
        return
    if strangers := sorted(entry.name for entry in path.iterdir() if entry.name != LOCK and not is_draft(entry)):
        raise RecordsError(
            f"The directory {path} holds other files ({', '.join(strangers[:3])}) and no evaluation. "
            "Pass --out with a new or empty directory."
        )


def _delete_results(path: Path) -> None:
    for name in (VIDEOS, OBSERVATIONS):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in (_EPISODES, _REPORT, _PAGE, _RUN):
        (path / name).unlink(missing_ok=True)
