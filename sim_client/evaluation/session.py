"""Running the fixed list of episodes with a crew: each counted exactly once, whatever breaks on the way."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from policy_protocol.errors import ChunkwireError
from sim_client.crew.workshop import Event, Lost, Made, Ready
from sim_client.episode.record import EpisodeRecord
from sim_client.errors import Interrupted
from sim_client.evaluation.acceptance import require_compatible
from sim_client.evaluation.compatibility import environment_mismatches
from sim_client.evaluation.players import Step
from sim_client.evaluation.progress import Progress
from sim_client.evaluation.same_versions import require_same_versions
from sim_client.evaluation.shared_list import SharedWorkList
from sim_client.evaluation.staff import Staff
from sim_client.evaluation.stopping import StopRule
from sim_client.evaluation.void import void_record
from sim_client.evaluation.work_list import Assignment, WorkList
from sim_client.evaluation.workshop import EpisodeWorkshop, Said
from sim_client.results.directory import ResultsDirectory, read_results
from sim_client.results.shared import SharedDirectory

__all__ = ["EvaluationSession"]


class EvaluationSession:
    """A results directory and the crew that finishes it.

    Args:
        directory: what is finished, and where the rest goes.
        workshop: what the workers open.
        staff: who they are.
        progress: shows it.
    """

    def __init__(
        self, directory: ResultsDirectory, workshop: EpisodeWorkshop, staff: Staff, progress: Progress
    ) -> None:
        self._directory, self._workshop, self._staff, self._progress = directory, workshop, staff, progress
        run = directory.run
        self._list = self._work_list()
        width = run.options.stop_when_sure
        self._stop_rule = None if width is None else StopRule(run.seeds, width)
        self._taken_at: dict[int, float] = {}
        self._recorded: set[int] = set()
        self._described = self._sure = False

    def run(self) -> None:
        """Run every episode that has no result yet.

        Raises:
            Interrupted: Ctrl-C.
            ServerUnavailable: the server is gone for good; its episode is recorded as an error.
            ChunkwireError: the policy, the workers or the records are broken, so that going on would make no sense.
        """
        logs = Path(tempfile.mkdtemp(prefix="sim-client-"))
        try:
            self._run(logs)
            shutil.rmtree(logs)  # else the error names a log in it
        except KeyboardInterrupt as error:
            shutil.rmtree(logs)
            if self._directory.is_complete():
                return
            raise Interrupted(f"Stopped. {self._what_is_kept()} {self._how_it_goes_on()}") from error

    def _run(self, logs: Path) -> None:
        self._check_stop(self._directory.records())
        if self._sure or not self._list.has_work():
            return
        leases = math.ceil(len(self._list) / self._staff.num_envs)
        crew = self._staff.hire(self._workshop, leases, logs, self._directory.run.options.retries)
        try:
            for event in crew.run(self._take, self._note):
                self._handle(event)
                if self._sure:
                    break
        finally:
            crew.stop()

    def _work_list(self) -> WorkList:
        directory, at_once, retries = self._directory, self._staff.num_envs, self._directory.run.options.retries
        if isinstance(directory, SharedDirectory):
            return SharedWorkList(directory, at_once, retries, self._hear, self._progress.waits)
        return WorkList(directory.remaining(), at_once, retries)

    def _hear(self, records: Sequence[EpisodeRecord]) -> None:
        """Count what other processes have recorded."""
        self._progress.seen(records)
        self._check_stop(records)

    def _take(self) -> tuple[Assignment, ...] | None:
        lease = self._list.take()
        if self._sure:
            return None
        if lease is not None:
            self._taken_at[lease[0].index] = time.monotonic()
        return lease

    def _note(self, worker: int, note: Any) -> None:
        self._list.look()
        if isinstance(note, Said):
            self._progress.say(note.text)
        elif isinstance(note, Step):
            self._progress.step(worker, note.seed, note.step)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Ready):
            self._accept(event)
        elif isinstance(event, Made) and isinstance(event.result, ChunkwireError):
            self._progress.say(self._where_it_ends(event.job))
            raise event.result
        elif isinstance(event, Made):
            self._store(event.worker, event.result)
        elif isinstance(event, Lost):
            self._recover(event)

    def _accept(self, event: Ready) -> None:
        """Refuse a simulator that is not what the policy was trained in; say once what is different and allowed."""
        run = self._directory.run
        require_same_versions(event.facts.versions, run.versions)
        found = environment_mismatches(run.spec, event.facts.simulator)
        self._directory.note_mismatches(require_compatible(found, run.options.allow_mismatch, run.spec))
        if self._described:
            return
        self._described = True
        for text in (*map(str, self._directory.run.mismatches), *run.notices):
            self._progress.say(f"Note: {text}")

    def _recover(self, event: Lost) -> None:
        """A worker died: its episodes go to another one, as often as infrastructure errors are retried."""
        self._progress.lost(event.worker, event.reason)
        left = [one for one in event.job or () if one.index not in self._recorded]
        if not left:
            return
        lost_s = time.monotonic() - self._taken_at[event.job[0].index]
        for one in self._list.lost(left, lost_s):
            error = f"workers: {event.reason}"
            self._store(event.worker, void_record(self._workshop.rules, one, one.begun, error, one.lost_s))

    def _store(self, worker: int, record: EpisodeRecord) -> None:
        # What only a running simulator could tell is in the run's record, but not in the rules that the worker has.
        record = replace(record, provenance=self._directory.run.provenance)
        self._directory.append(record)
        self._recorded.add(record.index)
        self._progress.finished(worker, record)
        self._check_stop([record])

    def _where_it_ends(self, lease: Sequence[Assignment]) -> str:
        seeds = ", ".join(str(one.seed) for one in lease if one.index not in self._recorded)
        return f"Stopped at the episode of seed {seeds}. {self._what_is_kept()}"

    def _what_is_kept(self) -> str:
        run, records = read_results(self._directory.path)
        finished, planned = sum(record.outcome != "error" for record in records), len(run.seeds)
        return f"{finished} of {planned} episodes are finished and kept in {self._directory.path}."

    def _how_it_goes_on(self) -> str:
        others = len(self._directory.others())
        if not others:
            return "Run the same command again to go on."
        who = "Another process goes on" if others == 1 else f"{others} other processes go on"
        return f"{who} with the rest. Run the same command again to join."

    def _check_stop(self, records: Iterable[EpisodeRecord]) -> None:
        if self._stop_rule is None:
            return
        count = self._stop_rule.sure_after(records)
        if count is not None:
            self._directory.stop_after(count, self._stop_rule.interval)
            self._sure = True
