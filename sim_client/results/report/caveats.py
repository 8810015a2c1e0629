"""What a reader must know before believing the numbers. Both reports begin with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sim_client.episode.record import EpisodeRecord
from sim_client.results.anytime import AnytimeInterval
from sim_client.results.run_record import RunRecord
from sim_client.results.summary import Summary

__all__ = ["Caveat", "caveats"]


@dataclass(frozen=True)
class Caveat:
    """One thing about a run that bends its numbers, or could."""

    title: str
    text: str
    details: tuple[str, ...] = ()


def caveats(run: RunRecord, records: Sequence[EpisodeRecord], summary: Summary) -> tuple[Caveat, ...]:
    """Everything that is not as planned or not as in training; none for a clean run."""
    return (*_of_episodes(run, summary), *_of_the_list(run, summary), *_of_the_simulation(run, records))


def _of_episodes(run: RunRecord, summary: Summary) -> Iterator[Caveat]:
    errors = summary.outcomes["error"]
    if errors:
        yield Caveat(
            f"{errors} of {summary.planned} episodes ended in an error",
            "The infrastructure broke, which is no verdict on the policy: they are in no rate. Counted as failures, "
            f"success_once is {summary.success_once_of_all}. Run the same command again to repeat them.",
        )
    if summary.missing:
        yield Caveat(
            f"{summary.missing} of {summary.planned} planned episodes have no result",
            "The rates are those of the others, if any. Run the same command again to go on.",
        )
    if summary.repeated:
        yield Caveat(
            f"Begun more than once: {summary.repeated} of {summary.planned} episodes",
            f"Void attempts took {summary.lost_s:.1f} s. Each one was begun anew with its own seed, and counts once.",
        )


def _of_the_list(run: RunRecord, summary: Summary) -> Iterator[Caveat]:
    if run.extended_from and summary.planned > run.extended_from[0]:
        earlier = ", then ".join(map(str, run.extended_from))
        effect = (
            "If the first results were the reason to go on, the interval is narrower than it should be."
            if summary.anytime is None
            else "The anytime-valid interval allows for that."
        )
        yield Caveat(
            "The run was extended",
            f"It was planned with {earlier} episodes and continued to {len(run.seeds)} afterwards. {effect}",
        )
    if summary.anytime is not None:
        yield _of_stopping(run, summary, summary.anytime)
    if run.options.on_demonstrations:
        yield Caveat(
            "The episodes start as the training demonstrations did",
            "This tells what a policy remembers, not how well it does elsewhere.",
        )


def _of_stopping(run: RunRecord, summary: Summary, anytime: AnytimeInterval) -> Caveat:
    title = (
        f"Not sure after {anytime.episodes} of {len(run.seeds)} planned episodes (--stop-when-sure)"
        if run.stopped_after is None
        else f"Stopped after {run.stopped_after} of {len(run.seeds)} planned episodes (--stop-when-sure)"
    )
    gap = (
        f" It is over the first {anytime.episodes} of the list, for the next one has no verdict."
        if anytime.episodes < summary.success_once.episodes
        else ""
    )
    return Caveat(
        title,
        f"The interval that counts is the anytime-valid one on success_once, {anytime}.{gap} The Wilson "
        "intervals assume a number of episodes that was fixed in advance, and are too narrow here.",
    )


def _of_the_simulation(run: RunRecord, records: Sequence[EpisodeRecord]) -> Iterator[Caveat]:
    if run.mismatches:
        yield Caveat(
            f"Mismatches with training that were allowed: {len(run.mismatches)}",
            "The policy was measured in a simulation that it was not trained in.",
            tuple(map(str, run.mismatches)),
        )
    if run.overrides:
        yield Caveat(
            f"Overrides: {len(run.overrides)}",
            "Set on the command line instead of taken from the policy's spec.",
            tuple(f"{flag} {value}" for flag, value in run.overrides.items()),
        )
    if run.notices:
        yield Caveat(f"Notes of the set-up: {len(run.notices)}", "", run.notices)
    strangers = sorted({record.provenance.checkpoint for record in records} - {run.checkpoint})
    if strangers:
        yield Caveat("Episodes of another checkpoint", f"The run is of {run.checkpoint}.", tuple(strangers))
