"""The runs that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sim_client.episode.record import EpisodeRecord
from sim_client.errors import InvalidOption
from sim_client.results.directory import read_results
from sim_client.results.run_record import RunRecord
from sim_client.results.summary import Summary, summarize

__all__ = ["ComparedRun", "names_of", "read_runs", "require_several"]


@dataclass(frozen=True)
class ComparedRun:
    """One run under the name that the comparison gives it."""

    name: str
    directory: Path
    run: RunRecord
    records: tuple[EpisodeRecord, ...]

    @cached_property
    def summary(self) -> Summary:
        """The run by itself, as its own report has it."""
        return summarize(self.run, self.records)

    @cached_property
    def scored(self) -> dict[int, EpisodeRecord]:
        """Seed -> record of every episode that did not end in an error."""
        return {record.seed: record for record in self.records if record.outcome != "error"}

    @cached_property
    def errors(self) -> frozenset[int]:
        """Seeds of the episodes that ended in an error."""
        return frozenset(record.seed for record in self.records if record.outcome == "error")


def read_runs(directories: Sequence[Path], names: Sequence[str] = ()) -> tuple[ComparedRun, ...]:
    """Read two or more results directories of one task.

    Args:
        names: of the runs; by default the ends of their paths.

    Raises:
        InvalidOption: fewer than two, one of them twice, or different tasks.
        RecordsError: there is no evaluation in one of them, or it is damaged.
    """
    require_several(directories)
    runs = tuple(
        ComparedRun(name, directory, *read_results(directory))
        for name, directory in zip(names or names_of(directories), directories, strict=True)
    )
    _require_one_task(runs)
    return runs


def require_several(directories: Sequence[Path]) -> None:
    """Raises `InvalidOption`: fewer than two, or one of them twice."""
    if len(directories) < 2:
        raise InvalidOption("Name at least two results directories: sim-client compare A B.", field="DIR")
    _require_different(directories)


def names_of(directories: Sequence[Path]) -> tuple[str, ...]:
    """As much of each path's end as tells all of them apart."""
    paths, depth = [directory.resolve() for directory in directories], 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return tuple("/".join(path.parts[-depth:]) for path in paths)


def _require_different(directories: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for directory in directories:
        if (other := seen.setdefault(directory.resolve(), directory)) is not directory:
            raise InvalidOption(
                f"{other} and {directory} are the same directory: a run differs from itself by nothing. "
                "Name each directory once.",
                field="DIR",
            )


def _require_one_task(runs: Sequence[ComparedRun]) -> None:
    first = runs[0]
    for other in runs[1:]:
        if other.run.options.env_id != first.run.options.env_id:
            raise InvalidOption(
                f"{first.directory} measures {first.run.options.env_id} and {other.directory} measures "
                f"{other.run.options.env_id}: success on different tasks cannot be compared. "
                "Name runs of one task.",
                field="DIR",
            )
