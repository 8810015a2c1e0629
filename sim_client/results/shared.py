"""A results directory that several processes write to, on one machine or on several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sim_client.episode.record import EpisodeRecord
from sim_client.results.directory import ResultsDirectory
from sim_client.results.layout import EPISODES, RUN
from sim_client.results.membership import Membership, Standing, living_members
from sim_client.results.opening import begin, begin_with_others, lock_results, require_no_strangers
from sim_client.results.records import EpisodeFile, EpisodeTail, final_records
from sim_client.results.run_record import RunRecord

__all__ = ["SharedDirectory"]


class SharedDirectory(ResultsDirectory):
    """The results of one run that this process is a member of.

    Members change the files one at a time. Each has the episodes that it is at on lease; what a dead one had is free
    again, and so is all of it once this one closes. What is in the directory is known as of the last `look` or `lease`.

    Args:
        path: made if it does not exist.
        run: what is about to be run; the same in every member.

    Raises:
        RecordsError: a process writes here that does not share, or the directory holds another run or other files.
    """

    def __init__(self, path: Path, run: RunRecord) -> None:
        self.path = path
        self._records: list[EpisodeRecord] = []
        self._tail = EpisodeTail(path / EPISODES)
        self._membership = Membership(path)
        self._standing = Standing(0)
        self._told = 0
        self.unleased = 0
        """Episodes that were free after the last `lease`."""
        require_no_strangers(path)
        self._lock = lock_results(path, shared=True)
        try:
            self._join(run)
        except BaseException:
            self.close()
            raise

    @property
    def leased(self) -> frozenset[int]:
        """Places in the list of the episodes that this member is at."""
        return self._standing.leases

    def records(self) -> tuple[EpisodeRecord, ...]:
        """See `ResultsDirectory.records`."""
        counted = set(self.run.counted_seeds)
        return tuple(record for record in final_records(self._records) if record.seed in counted)

    def open(self) -> tuple[tuple[int, int], ...]:
        """(index, seed) of the episodes that the members have neither given a verdict nor given up."""
        given_up = {record.seed for record in self._records[self._standing.since :]}
        return tuple(one for one in self.remaining() if one[1] not in given_up)

    def look(self) -> None:
        """Read what the others have recorded."""
        with self._membership.locked():
            self._look()

    def is_complete(self) -> bool:
        """See `ResultsDirectory.is_complete`; the others may have finished it."""
        self.look()
        return super().is_complete()

    def news(self) -> tuple[EpisodeRecord, ...]:
        """Records that were read and not yet told, this member's own among them."""
        new, self._told = self._records[self._told :], len(self._records)
        return tuple(new)

    def lease(self, count: int) -> tuple[tuple[int, int], ...]:
        """Take up to `count` free episodes, (index, seed) each, in the order of the list; none where none is free.

        Raises:
            RecordsError: the list cannot be locked, read or written.
        """
        with self._membership.locked():
            self._look()
            taken = self.leased.union(*(standing.leases for standing in self._membership.others().values()))
            free = [one for one in self.open() if one[0] not in taken]
            lease = free[:count]
            self.unleased = len(free) - len(lease)
            if lease:
                self._write(self.leased | {index for index, _ in lease})
        return tuple(lease)

    def append(self, record: EpisodeRecord) -> None:
        """Store one episode and end its lease. Raises `RecordsError`."""
        with self._membership.locked():
            self._look()
            # A machine that was cut off from the others may come back with an episode that they have run meanwhile.
            if all(one.seed != record.seed or one.outcome == "error" for one in self._records):
                file = EpisodeFile(self.path / EPISODES)  # opened each time: over NFS, to see what the others wrote
                try:
                    file.append(record)
                finally:
                    file.close()
                self._look()
            self._write(self.leased - {record.index})

    def others(self) -> tuple[str, ...]:
        """Names of the other members."""
        return tuple(name for name in living_members(self.path) if name != self._membership.name)

    def close(self) -> None:
        """Leave: the others go on."""
        self._membership.leave()
        self._lock.close()

    def _join(self, run: RunRecord) -> None:
        with self._membership.locked():
            others = self._membership.others()
            self.run = begin_with_others(self.path, run) if others else begin(self.path, run)
            self._look()
            self._told = len(self._records)
            since = {standing.since for standing in others.values()} or {len(self._records)}
            self._standing = Standing(min(since))
            self._write(frozenset())

    def _look(self) -> None:
        self._records += self._tail.read()

    def _write(self, leases: frozenset[int]) -> None:
        self._standing = replace(self._standing, leases=leases)
        self._membership.write(self._standing)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._membership.locked():
            self.run = RunRecord.read(self.path / RUN)
            yield
