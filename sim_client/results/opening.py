"""How a results directory is opened: locked, with nothing else in it, and for the run that it holds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from sim_client.episode.observation_log import OBSERVATIONS
from sim_client.episode.video import VIDEOS
from sim_client.errors import RecordsError
from sim_client.files import LOCK, FolderInUse, is_draft, lock_folder
from sim_client.results.layout import EPISODES, PAGE, REPORT, RUN
from sim_client.results.membership import MEMBERS, living_members
from sim_client.results.records import read_records
from sim_client.results.run_record import RunRecord

__all__ = ["begin", "begin_with_others", "delete_results", "lock_results", "require_no_strangers"]


def lock_results(path: Path, *, shared: bool = False) -> IO[str]:
    """Lock the directory until the returned file is closed.

    Args:
        shared: together with other processes that lock it so.

    Raises:
        RecordsError: it is locked by another process, or cannot be used.
    """
    try:
        return lock_folder(path, shared=shared)
    except FolderInUse as error:
        raise RecordsError(_in_use(path, error.owner, shared)) from error
    except OSError as error:
        raise RecordsError(f"--out {path} cannot be used: {error.strerror or error}.") from error


def require_no_strangers(path: Path) -> None:
    """Refuse a directory that is used for something else, before anything is written to it."""
    if not path.is_dir():
        return
    ours = (LOCK, MEMBERS)
    strangers = sorted(entry.name for entry in path.iterdir() if entry.name not in ours and not is_draft(entry))
    # Looked for last: another process that shares may have written one of them just now, and writes the run first.
    if strangers and not (path / RUN).exists() and not (path / EPISODES).exists():
        raise RecordsError(
            f"The directory {path} holds other files ({', '.join(strangers[:3])}) and no evaluation. "
            "Pass --out with a new or empty directory."
        )


def delete_results(path: Path) -> None:
    """Leave nothing of the run in a locked directory."""
    for name in (VIDEOS, OBSERVATIONS, MEMBERS):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in (EPISODES, REPORT, PAGE, RUN):
        (path / name).unlink(missing_ok=True)


def begin(directory: Path, run: RunRecord) -> RunRecord:
    """Continue the run that has episodes there; one that has none, stopped while setting up, leaves no trace."""
    path = directory / RUN
    if read_records(directory / EPISODES):
        run = _continued(_read_run(path), run, directory)
    run.write(path)
    return run


def begin_with_others(directory: Path, run: RunRecord) -> RunRecord:
    """Join the run that other processes are at.

    Raises:
        RecordsError: it is another one than `run`.
    """
    old = RunRecord.read(directory / RUN)
    if differences := old.differences(run):
        raise RecordsError(
            f"{directory} is shared by processes that work on another run:\n{_lines(differences)}\n"
            "Pass the same flags as they have, or --out DIR for a run of its own."
        )
    if old.options.episodes != run.options.episodes:
        raise RecordsError(
            f"The processes that share {directory} work on {old.options.episodes} episodes, not {run.options.episodes}."
            f" Pass --episodes {old.options.episodes}; once they are done, the run can be continued with more."
        )
    run = old.continued_by(run)
    run.write(directory / RUN)
    return run


def _read_run(path: Path) -> RunRecord:
    if not path.exists():
        raise RecordsError(
            f"{path.parent} holds episodes but no {RUN} that says what they are. "
            "Pass --overwrite to delete them, or --out with another directory."
        )
    return RunRecord.read(path)


def _continued(old: RunRecord, new: RunRecord, path: Path) -> RunRecord:
    if differences := old.differences(new):
        raise RecordsError(
            f"{path} holds the results of another run:\n{_lines(differences)}\n"
            "Pass --out DIR for a run of its own, or --overwrite to delete the results that are there."
        )
    return old.continued_by(new)


def _lines(differences: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in differences)


def _in_use(path: Path, owner: str, shared: bool) -> str:
    if members := living_members(path):
        return (
            f"{len(members)} processes share the episodes of {path} ({', '.join(members)}). Pass --share to work on "
            "them too, wait for them, or pass another --out."
        )
    remedy = "start it anew with --share too" if shared else "stop it"
    return f"Another process (id {owner}) is writing to {path}. Wait for it, {remedy}, or pass another --out."
