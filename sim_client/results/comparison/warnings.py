"""What makes a comparison less than one of two policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sim_client.results.comparison.pair import RunPair
from sim_client.results.comparison.run import ComparedRun

__all__ = ["warnings"]

_OF_THE_POLICY = {"checkpoint", "policy spec"}
_OF_THE_LIST = {"option seed", "option stop_when_sure"}
"""Which episodes were run: the pairing tells that."""
_SETTLED = (
    *("env_id", "prompt", "robot_uids", "control_mode", "sim_freq", "control_freq", "camera_size"),
    *("max_episode_steps", "execution_horizon", "sim_backend", "render_backend"),
)
"""Options whose outcome stands in the run by itself, whether the option or the policy's spec decided it."""
_EXPECTED = _OF_THE_POLICY | _OF_THE_LIST | {f"option {name}" for name in _SETTLED}


def warnings(runs: Sequence[ComparedRun], pairs: Sequence[RunPair]) -> tuple[str, ...]:
    """One sentence or two each; none where only the policy differs and every episode counts."""
    return (
        *(line for other in runs[1:] for line in _differences(runs[0], other)),
        *(line for pair in pairs for line in _of_pairing(pair)),
        *(line for one in runs for line in _of_run(one)),
    )


def _differences(first: ComparedRun, other: ComparedRun) -> Iterator[str]:
    lines = [line for line in first.run.differences(other.run) if line.partition(": ")[0] not in _EXPECTED]
    if lines:
        yield f"From {first.name} to {other.name} more than the policy changes: {'; '.join(lines)}."


def _of_pairing(pair: RunPair) -> Iterator[str]:
    if not pair.paired:
        yield (
            f"{pair.first.name} and {pair.second.name} ran different episodes ({len(pair.shared)} seeds in common), so "
            "they are compared unpaired. Runs on the same seeds need fewer episodes to be told apart."
        )
    elif pair.left_out:
        yield f"{pair.first.name} and {pair.second.name}: episodes not compared: {', '.join(pair.left_out)}."


def _of_run(one: ComparedRun) -> Iterator[str]:
    run, summary = one.run, one.summary
    planned = len(run.counted_seeds)
    if run.options.on_demonstrations:
        yield (
            f"{one.name} ran on the training demonstrations: its rate tells what the policy remembers and is no "
            "measure of it. Compare it with nothing but another run on demonstrations."
        )
    if errors := summary.outcomes["error"]:
        yield (
            f"{one.name}: {errors} of {planned} episodes ended in an error and are in no rate. "
            "Run its command again to repeat them."
        )
    if missing := planned - len(one.records):
        yield f"{one.name}: {missing} of {planned} episodes are still to run."
    if run.stopped_after is not None:
        yield (
            f"{one.name} was stopped when it was sure, after {run.stopped_after} of {len(run.seeds)} episodes. "
            "Intervals and p-values here assume numbers that were fixed in advance."
        )
    elif run.options.stop_when_sure is not None:
        yield (
            f"{one.name} was to stop when it was sure, which it was not yet after {len(one.records)} episodes. "
            "Intervals and p-values here assume numbers that were fixed in advance."
        )
    if run.extended_from and summary.planned > run.extended_from[0]:
        yield (
            f"{one.name} was planned with {', then '.join(map(str, run.extended_from))} episodes and continued to "
            f"{len(run.seeds)}. If the first results were the reason, intervals and p-values are too small."
        )
