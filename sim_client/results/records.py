"""`episodes.jsonl`: one line of JSON per episode, on disk before the next episode begins."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json
from sim_client.episode.record import EpisodeRecord
from sim_client.errors import RecordsError

__all__ = ["EpisodeFile", "EpisodeTail", "final_records", "read_records"]


def read_records(path: Path) -> tuple[EpisodeRecord, ...]:
    """Every complete line of `path`, in the order of writing; none if there is no such file.

    A last line without its end is what a killed process leaves: it is passed over.

    Raises:
        RecordsError: a complete line is no record; names the line.
    """
    return EpisodeTail(path).read()


class EpisodeTail:
    """Reads `episodes.jsonl` while it grows: each time what is new.

    Args:
        path: need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = self._lines = 0

    def read(self) -> tuple[EpisodeRecord, ...]:
        """The complete lines that were added since the last time. Raises as `read_records` does."""
        if not self._path.exists():
            return ()
        with self._path.open("rb") as file:
            file.seek(self._end)
            *lines, _ = file.read().split(b"\n")
        first = self._lines + 1
        records = tuple(_parse(line, f"{self._path}, line {number}") for number, line in enumerate(lines, start=first))
        self._end += sum(len(line) + 1 for line in lines)
        self._lines += len(lines)
        return records


def final_records(records: Iterable[EpisodeRecord]) -> tuple[EpisodeRecord, ...]:
    """One record per seed, ordered by index: the first that is no error, else the last error.

    `attempts` and `lost_s` are sums with those of the seed's errors before it: a resumed run hides no void attempt.
    """
    final: dict[int, EpisodeRecord] = {}
    for record in records:
        earlier = final.get(record.seed)
        if earlier is None:
            final[record.seed] = record
        elif earlier.outcome == "error":
            final[record.seed] = _after(earlier, record)
    return tuple(sorted(final.values(), key=lambda record: record.index))


class EpisodeFile:
    """Appends records to `episodes.jsonl`; each one is on the disk when `append` returns.

    Opening it cuts off a half-written last line; that episode is run again.

    Raises:
        RecordsError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
            _cut_half_line(path)
        except OSError as error:
            raise RecordsError(f"{path} cannot be written: {error.strerror or error}.") from error

    def append(self, record: EpisodeRecord) -> None:
        """Write one line and wait until it is stored.

        Raises:
            RecordsError: the disk is full or failing; the lines before are kept whole.
        """
        line = record.to_line().encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(28, "no space left on device")
            os.fsync(self._file.fileno())
        except OSError as error:
            os.truncate(self._path, size)
            raise RecordsError(
                f"The result of episode seed {record.seed} cannot be written to {self._path}: "
                f"{(error.strerror or str(error)).lower()}. The episodes before it are kept; "
                "make room and run the same command again."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _after(error: EpisodeRecord, record: EpisodeRecord) -> EpisodeRecord:
    return replace(record, attempts=error.attempts + record.attempts, lost_s=round(error.lost_s + record.lost_s, 3))


def _parse(line: bytes, place: str) -> EpisodeRecord:
    try:
        return from_json(EpisodeRecord, json.loads(line))
    except (ValueError, SpecInvalid) as error:
        raise RecordsError(
            f"{place} is not an episode record: {error}. Delete that line to run its episode again, "
            "or pass --overwrite to begin anew."
        ) from error


def _cut_half_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.truncate(path, whole)
