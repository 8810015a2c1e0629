"""`report.md`: a run in Markdown, rebuilt from its directory at any time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from policy_protocol.spec import CameraSpec
from sim_client.episode.record import CameraStatistics, EpisodeRecord
from sim_client.results.report.caveats import caveats
from sim_client.results.report.wording import (
    OUTCOMES,
    at_end,
    chunk_line,
    clock_line,
    headline,
    milliseconds,
    outside_by_dimension,
    percent,
    repetition,
    rgb,
    share,
    shown_rates,
    stage_rates,
    step,
    throughput_line,
    wall_parts,
)
from sim_client.results.run_record import RunRecord
from sim_client.results.summary import Latency, Summary

__all__ = ["markdown", "table"]


def markdown(run: RunRecord, records: Sequence[EpisodeRecord], summary: Summary) -> str:
    """The whole report."""
    sections = (
        _top(run, records, summary),
        _differences(run),
        _outcomes(run, summary),
        _stages(summary),
        _speed(summary),
        _drift(run, summary),
        _episodes(records),
        _repetition(run),
    )
    return "\n".join(line for section in sections for line in section) + "\n"


def _top(run: RunRecord, records: Sequence[EpisodeRecord], summary: Summary) -> Iterator[str]:
    yield f"# {_plain(headline(run, summary))}"
    yield ""
    use = chunk_line(run)
    yield f"Policy {_code(run.checkpoint)}, prompt “{_plain(run.prompt)}”, {use}."
    yield (
        f"Episode seeds {run.seeds[0]} to {run.seeds[-1]}, fixed before the first step. "
        "Rates are k/n = share [95% Wilson interval]."
    )
    yield ""
    for caveat in caveats(run, records, summary):
        yield f"> **{_plain(caveat.title)}.** {_plain(caveat.text)}".rstrip()
        yield ">"
    yield ""


def _differences(run: RunRecord) -> Iterator[str]:
    yield "## Overrides and mismatches"
    yield ""
    lines = [f"- Override {_code(f'{flag} {value}')}" for flag, value in run.overrides.items()]
    lines += [f"- **Mismatch allowed**: {_plain(str(mismatch))}" for mismatch in run.mismatches]
    lines += [f"- Note: {_plain(notice)}" for notice in run.notices]
    yield from lines or ["None: the simulation is the one that the policy was trained in."]
    yield ""


def _outcomes(run: RunRecord, summary: Summary) -> Iterator[str]:
    yield "## Outcomes"
    yield ""
    yield from table(
        ("outcome", "episodes", "meaning"),
        ((kind, count, OUTCOMES[kind]) for kind, count in summary.outcomes.items()),
    )
    yield ""
    yield from table(
        ("success", "rate"),
        (
            ("success_once (headline)", shown_rates(run, summary)[0]),
            (at_end(run), summary.success_at_end),
            ("success_once, errors as failures", summary.success_once_of_all),
        ),
    )
    yield ""


def _stages(summary: Summary) -> Iterator[str]:
    yield "## Stages and episode lengths"
    yield ""
    rows = ((flag, rate, step(summary.first_steps.get(flag))) for flag, rate in stage_rates(summary))
    yield from table(("stage ever reached (flag turned true)", "episodes", "median of the first time"), rows)
    yield ""
    lengths = ", ".join(f"{name} {value:g}" for name, value in summary.steps.items())
    yield f"Episode length in steps: {lengths or 'no episode yet'}."
    yield ""


def _speed(summary: Summary) -> Iterator[str]:
    yield "## Where the time went"
    yield ""
    yield from table(
        ("part", "seconds", "share"),
        (
            (name, f"{seconds:.1f}", percent(seconds, summary.wall.total_s))
            for name, (_, seconds) in wall_parts(summary).items()
        ),
    )
    yield ""
    if summary.lost_s:
        yield f"Void attempts, in no row above: {summary.lost_s:.1f} s, waiting to begin anew included."
        yield ""
    yield throughput_line(summary)
    yield ""
    if clock := clock_line(summary):
        yield clock
        yield ""
    yield from table(
        ("latency of a request", "p50", "p95", "requests"),
        (_latency_row("round trip (client)", summary.round_trip), _latency_row("inference (server)", summary.infer)),
    )
    yield ""


def _drift(run: RunRecord, summary: Summary) -> Iterator[str]:
    yield "## Drift against training"
    yield ""
    yield f"- State numbers outside the training q01 to q99: {share(summary.state_outside_share)} (2% is expected)"
    yield f"- Action numbers clipped to the controller's bounds: {share(summary.clipped_share)}"
    if by_dimension := outside_by_dimension(run, summary):
        shares = ", ".join(f"{name} {share(value)}" for name, value in by_dimension.items())
        yield f"- The same by dimension of the state: {shares}"
    yield ""
    trained = {camera.key: camera for camera in run.spec.observation.cameras}
    yield from table(
        ("camera", "mean RGB here", "in training", "std RGB here", "in training"),
        (_camera_row(key, here, trained.get(key)) for key, here in summary.cameras.items()),
    )
    yield ""


def _episodes(records: Sequence[EpisodeRecord]) -> Iterator[str]:
    yield "## Episodes"
    yield ""
    yield from table(
        ("#", "seed", "outcome", "first success", "at end", "steps", "chunks", "seconds", "attempts", "error"),
        map(_episode_row, records),
    )
    yield ""


def _episode_row(record: EpisodeRecord) -> tuple[object, ...]:
    verdict = (record.outcome, step(record.first_success), "yes" if record.success_at_end else "no")
    effort = (record.steps, record.chunks, f"{record.wall.total_s:.1f}", record.attempts)
    return (record.index + 1, record.seed, *verdict, *effort, record.error)


def _repetition(run: RunRecord) -> Iterator[str]:
    yield "## How to repeat it"
    yield ""
    yield f"```\n{run.command_line}\n```"
    yield ""
    yield from (f"- {_plain(line)}" for line in repetition(run))
    yield f"- Begun {run.created}; everything else is in `run.json` and `episodes.jsonl`."


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(_cell(value) for value in row)} |"


def _cell(value: object) -> str:
    return _plain(str(value).replace("|", "\\|"))


def _plain(text: str) -> str:
    """On one line, and with no HTML in it."""
    return " ".join(text.replace("<", "\\<").split())


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def _latency_row(name: str, latency: Latency) -> tuple[object, ...]:
    return (name, milliseconds(latency.p50), milliseconds(latency.p95), latency.requests)


def _camera_row(key: str, here: CameraStatistics, trained: CameraSpec | None) -> tuple[str, ...]:
    mean, std = (trained.mean, trained.std) if trained else ((), ())
    return (f"`{key}`", rgb(here.mean), rgb(mean), rgb(here.std), rgb(std))
