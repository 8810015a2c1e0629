"""Several evaluations one after the other, side by side in one folder: one that fails does not lose the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from policy_protocol.errors import ChunkwireError
from sim_client.errors import IncompleteRun, Interrupted, RecordsError
from sim_client.results.directory import read_results
from sim_client.results.options import EvaluationOptions
from sim_client.results.run_record import RunRecord

__all__ = ["Series"]


class Series:
    """Evaluations by name, each with a results directory of its own.

    Args:
        thing: what a name is the name of, as a user calls it.
        folder: of all; the directory of one bears its name.
        evaluations: name -> what is asked for, in the order of running.
        belongs: whether a run of these options, found in the directory of a name, is of the policy that is meant.

    Attributes:
        failed: name -> the message of its error.
    """

    def __init__(
        self,
        thing: str,
        folder: Path,
        evaluations: Mapping[str, EvaluationOptions],
        belongs: Callable[[str, RunRecord], bool],
    ) -> None:
        self.folder = folder
        self.failed: dict[str, str] = {}
        self._thing, self._evaluations, self._belongs = thing, evaluations, belongs

    def run(
        self,
        evaluate: Callable[[EvaluationOptions, Path], None],
        console: Console,
        stop_at: tuple[type[ChunkwireError], ...] = (),
    ) -> None:
        """Run every one, or go on with it.

        Args:
            evaluate: runs one in the directory given.
            stop_at: errors after which the others have no chance either.

        Raises:
            Interrupted: Ctrl-C.
            ChunkwireError: one of `stop_at`.
        """
        for place, (name, options) in enumerate(self._evaluations.items(), start=1):
            heading = f"{self._thing.capitalize()} {place} of {len(self._evaluations)}: {name}"
            console.print(heading, markup=False, soft_wrap=True)
            try:
                evaluate(options, self.folder / name)
            except (Interrupted, *stop_at):
                raise
            except KeyboardInterrupt as error:
                raise Interrupted("Stopped between episodes. Run the same command again to go on.") from error
            except ChunkwireError as error:
                self.failed[name] = error.message
                console.print(f"{name} failed: {error.message}", markup=False, soft_wrap=True)

    def results(self) -> dict[str, Path]:
        """Name -> results directory of those that were begun, now or earlier."""
        return {name: self.folder / name for name in self._evaluations if self._begun(name) is not None}

    def unfinished(self) -> dict[str, str]:
        """Name -> why there is no result, or no whole one."""
        return {name: reason for name in self._evaluations if (reason := self.failed.get(name) or self._open(name))}

    def require_finished(self) -> None:
        """Raises `IncompleteRun` that names those that are not, each with the first line of why."""
        unfinished = self.unfinished()
        if not unfinished:
            return
        lines = "\n".join(f"  {name}: {reason.partition(chr(10))[0]}" for name, reason in unfinished.items())
        raise IncompleteRun(
            f"{len(unfinished)} of {len(self._evaluations)} {self._thing}s have no whole result:\n{lines}\n"
            f"What is finished is kept in {self.folder}. Running the same command again goes on from there."
        )

    def is_finished(self, name: str) -> bool:
        """Whether every episode that counts has a verdict."""
        return not self._open(name)

    def _begun(self, name: str) -> RunRecord | None:
        """The run in the directory of `name`, where it is the one that is asked for."""
        options = self._evaluations[name]
        try:
            run, _ = read_results(self.folder / name)
        except RecordsError:
            return None
        asked = replace(run.options, retries=options.retries) == options
        return run if asked and self._belongs(name, run) else None

    def _open(self, name: str) -> str:
        """What is still to do; empty when nothing is."""
        run = self._begun(name)
        if run is None:
            return "Still to run."
        _, records = read_results(self.folder / name)
        planned, errors = len(run.counted_seeds), sum(record.outcome == "error" for record in records)
        if errors:
            return f"{errors} of {planned} episodes ended in an infrastructure error."
        missing = planned - len(records)
        return f"{missing} of {planned} episodes are still to run." if missing else ""
