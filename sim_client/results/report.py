"""`report.md`: a run in Markdown, rebuilt from its directory at any time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from policy_protocol.spec import CameraSpec
from sim_client.episode.record import CameraStatistics, EpisodeRecord
from sim_client.errors import RecordsError
from sim_client.results.directory import read_results, report_path
from sim_client.results.run_record import RunRecord
from sim_client.results.summary import HEADLINE, Latency, Summary, summarize

__all__ = ["headline", "markdown", "write_report"]


def write_report(directory: Path) -> Summary:
    """Read the results in `directory` and write `report.md` beside them.

    Raises:
        RecordsError: there is no evaluation, it is damaged, or the report cannot be written.
    """
    run, records = read_results(directory)
    summary = summarize(run, records)
    path = report_path(directory)
    try:
        path.write_text(markdown(run, records, summary), encoding="utf-8")
    except OSError as error:
        raise RecordsError(f"{path} cannot be written: {error.strerror or error}.") from error
    return summary


def headline(run: RunRecord, summary: Summary) -> str:
    """The result in one line: which success, k/n, its 95% interval, and the errors if any remain."""
    errors = summary.outcomes["error"]
    text = f"{run.options.env_id}: {HEADLINE} {summary.success_once}, {_at_end(run)} {summary.success_at_end}"
    if errors:
        text += f"; {errors} ended in an error (counted as failures: {summary.success_once_of_all})"
    if summary.missing:
        text += f"; {summary.missing} of {summary.planned} episodes are still to run"
    return text


def _at_end(run: RunRecord) -> str:
    """`success_at_end` with the moment that counts as the end."""
    settle = run.options.settle_steps
    return "success_at_end" if settle is None else f"success_at_end ({settle} steps after success)"


def markdown(run: RunRecord, records: Sequence[EpisodeRecord], summary: Summary) -> str:
    """The whole report."""
    sections = (
        _top(run, summary),
        _differences(run),
        _outcomes(run, summary),
        _stages(summary),
        _speed(summary),
        _drift(run, summary),
        _episodes(records),
        _repetition(run),
    )
    return "\n".join(line for section in sections for line in section) + "\n"


def _top(run: RunRecord, summary: Summary) -> Iterator[str]:
    yield f"# {headline(run, summary)}"
    yield ""
    yield f"Policy `{run.checkpoint}`, prompt “{run.prompt}”, {run.execution_horizon} actions of each chunk executed."
    yield (
        f"Episode seeds {run.seeds[0]} to {run.seeds[-1]}, fixed before the first step. "
        "Rates are k/n = share [95% Wilson interval]."
    )
    yield ""
    if run.extended_from:
        earlier = ", then ".join(map(str, run.extended_from))
        yield f"> The run was planned with {earlier} episodes and continued to {summary.planned} afterwards. If the"
        yield "> first results were the reason to go on, the interval is narrower than it should be."
        yield ""


def _differences(run: RunRecord) -> Iterator[str]:
    yield "## Overrides and mismatches"
    yield ""
    lines = [f"- Override `{flag} {value}`" for flag, value in run.overrides.items()]
    lines += [f"- **Mismatch allowed**: {mismatch}" for mismatch in run.mismatches]
    lines += [f"- Note: {notice}" for notice in run.notices]
    yield from lines or ["None: the simulation is the one that the policy was trained in."]
    yield ""


def _outcomes(run: RunRecord, summary: Summary) -> Iterator[str]:
    yield "## Outcomes"
    yield ""
    meanings = {
        "success": "success at one step at least",
        "failure": "the task declared it failed",
        "timeout": "the limit came first",
        "error": "infrastructure, no verdict on the policy; run the command again to repeat them",
    }
    yield from _table(
        ("outcome", "episodes", "meaning"),
        ((kind, count, meanings[kind]) for kind, count in summary.outcomes.items()),
    )
    yield ""
    yield from _table(
        ("success", "rate"),
        (
            ("success_once (headline)", summary.success_once),
            (_at_end(run), summary.success_at_end),
            ("success_once, errors as failures", summary.success_once_of_all),
        ),
    )
    yield ""


def _stages(summary: Summary) -> Iterator[str]:
    yield "## Stages and episode lengths"
    yield ""
    rows = [*summary.stages.items(), ("success", summary.success_once)]
    yield from _table(("stage ever reached (flag turned true)", "episodes"), rows)
    yield ""
    lengths = ", ".join(f"{name} {value:g}" for name, value in summary.steps.items())
    yield f"Episode length in steps: {lengths or 'no episode yet'}."
    yield ""


def _speed(summary: Summary) -> Iterator[str]:
    wall = summary.wall
    other = max(0.0, wall.total_s - wall.simulate_s - wall.render_s - wall.wait_s)
    parts = (("physics", wall.simulate_s), ("rendering", wall.render_s), ("waiting for the policy", wall.wait_s))
    yield "## Where the time went"
    yield ""
    yield from _table(
        ("part", "seconds", "share"),
        ((name, f"{seconds:.1f}", _percent(seconds, wall.total_s)) for name, seconds in (*parts, ("other", other))),
    )
    yield ""
    if summary.lost_s:
        yield f"Void attempts, in no row above: {summary.lost_s:.1f} s, waiting to begin anew included."
        yield ""
    yield from _table(
        ("latency of a request", "p50", "p95", "requests"),
        (_latency_row("round trip (client)", summary.round_trip), _latency_row("inference (server)", summary.infer)),
    )
    yield ""


def _drift(run: RunRecord, summary: Summary) -> Iterator[str]:
    yield "## Drift against training"
    yield ""
    yield f"- State numbers outside the training q01 to q99: {_share(summary.state_outside_share)} (2% is expected)"
    yield f"- Action numbers clipped to the controller's bounds: {_share(summary.clipped_share)}"
    yield ""
    trained = {camera.key: camera for camera in run.spec.observation.cameras}
    yield from _table(
        ("camera", "mean RGB here", "in training", "std RGB here", "in training"),
        (_camera_row(key, here, trained.get(key)) for key, here in summary.cameras.items()),
    )
    yield ""


def _episodes(records: Sequence[EpisodeRecord]) -> Iterator[str]:
    yield "## Episodes"
    yield ""
    yield from _table(
        ("#", "seed", "outcome", "first success", "at end", "steps", "chunks", "seconds", "attempts", "error"),
        map(_episode_row, records),
    )
    yield ""


def _episode_row(record: EpisodeRecord) -> tuple[object, ...]:
    verdict = (record.outcome, _step(record.first_success), "yes" if record.success_at_end else "no")
    effort = (record.steps, record.chunks, f"{record.wall.total_s:.1f}", record.attempts)
    return (record.index + 1, record.seed, *verdict, *effort, record.error)


def _repetition(run: RunRecord) -> Iterator[str]:
    simulation = ", ".join(f"{name} {value}" for name, value in vars(run.settings).items())
    settle = run.options.settle_steps
    yield "## How to repeat it"
    yield ""
    yield f"```\n{run.command_line}\n```"
    yield ""
    yield f"- Server `{run.server}`, policy spec `{run.spec_hash}`, noise seed base {run.options.run_seed}"
    yield f"- Simulation: {simulation}"
    yield (
        "- An episode runs to its limit."
        if settle is None
        else f"- An episode ends {settle} steps after its first success or at its limit; success_at_end is judged then."
    )
    yield f"- Versions: {', '.join(f'{name} {version}' for name, version in run.versions.items())}"
    yield f"- Begun {run.created}; everything else is in `run.json` and `episodes.jsonl`."


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(_cell(value) for value in row)} |"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _step(step: int | None) -> str:
    return "-" if step is None else f"step {step}"


def _latency_row(name: str, latency: Latency) -> tuple[object, ...]:
    quantiles = ("-" if value is None else f"{value:.1f} ms" for value in (latency.p50, latency.p95))
    return (name, *quantiles, latency.requests)


def _camera_row(key: str, here: CameraStatistics, trained: CameraSpec | None) -> tuple[str, ...]:
    mean, std = (trained.mean, trained.std) if trained else ((), ())
    return (f"`{key}`", _rgb(here.mean), _rgb(mean), _rgb(here.std), _rgb(std))


def _rgb(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values) or "unknown"
