"""A comparison as sections, which the terminal and Markdown both show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sim_client.results.comparison.comparison import Comparison
from sim_client.results.comparison.stages import stage_judges
from sim_client.results.comparison.verdict import GOAL, Verdict, interval_text, p_text
from sim_client.results.report.markdown import table
from sim_client.results.summary import HEADLINE
from sim_client.statistics.difference import Difference
from sim_client.statistics.paired import PairedDifference

__all__ = ["Section", "as_markdown", "markdown", "points", "sections"]


@dataclass(frozen=True)
class Section:
    """A table under its title, and what to know about it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def sections(comparison: Comparison) -> Iterator[Section]:
    """The runs, the pairs, and the stages."""
    yield _runs(comparison)
    if len(comparison.verdicts) > 1:
        yield _pairs(comparison)
        yield _stage_rates(comparison)
        return
    (verdict,) = comparison.verdicts
    if isinstance(verdict.difference, PairedDifference):
        yield _episodes(verdict, verdict.difference)
    yield _stage_differences(verdict)


def markdown(comparison: Comparison) -> str:
    """The whole comparison, its result as the heading."""
    return as_markdown(f"{comparison.env_id}: {comparison.sentence}", comparison.warnings, sections(comparison))


def as_markdown(heading: str, warnings: Iterable[str], sections: Iterable[Section]) -> str:
    """A page of the heading, the warnings as quotes, and the tables."""
    lines = [f"# {heading}", ""]
    for warning in warnings:
        lines += [f"> {warning}", ">"]
    for section in sections:
        lines += ["", f"## {section.title}", "", *table(section.header, section.rows)]
        lines += ["", section.note] if section.note else []
    return "\n".join(lines) + "\n"


def _runs(comparison: Comparison) -> Section:
    rows = (
        (one.name, one.run.checkpoint, str(one.summary.success_once), str(one.summary.success_at_end))
        for one in comparison.runs
    )
    return Section(
        "Runs",
        ("run", "policy", HEADLINE, "success_at_end"),
        tuple(rows),
        "Rates are k/n = share [95% Wilson interval] over all episodes of a run that did not end in an error.",
    )


def _pairs(comparison: Comparison) -> Section:
    header = ("run", "against", "episodes", "points ahead, 95%", "p", "p after Holm", f"more for ±{GOAL * 100:.0f}")
    return Section(
        "Pairs",
        header,
        tuple(map(_pair_row, comparison.verdicts)),
        f"{HEADLINE}, exact McNemar tests and Tango's intervals where the seeds are the same, else Fisher's and "
        "Newcombe's. Holm's correction is for the p-values; each interval is 95% by itself.",
    )


def _pair_row(verdict: Verdict) -> tuple[str, ...]:
    difference, pair = verdict.difference, verdict.pair
    more = difference.more_episodes(GOAL)
    return (
        pair.second.name,
        pair.first.name,
        f"{len(pair.seeds)} paired" if pair.paired else f"{difference.second.episodes} and {difference.first.episodes}",
        points(difference),
        p_text(difference.p_value),
        p_text(verdict.p_value),
        "-" if more is None else f"{more} each",
    )


def _episodes(verdict: Verdict, counts: PairedDifference) -> Section:
    first, second = verdict.pair.first.name, verdict.pair.second.name
    return Section(
        f"The {counts.episodes} episodes that both ran",
        (HEADLINE, f"{second} succeeded", f"{second} did not"),
        (
            (f"{first} succeeded", str(counts.both), str(counts.only_first)),
            (f"{first} did not", str(counts.only_second), str(counts.neither)),
        ),
        "Paired by seed: exact McNemar test, Tango's score interval.",
    )


def _stage_differences(verdict: Verdict) -> Section:
    pair = verdict.pair
    rows = []
    for stage, judge in stage_judges((pair.first, pair.second)).items():
        difference = pair.difference(judge)
        rows.append((stage, str(difference.first), str(difference.second), points(difference)))
    kind = "paired by seed" if pair.paired else "unpaired (Newcombe's intervals; the result has Fisher's exact test)"
    return Section(
        "Stage by stage",
        ("stage", pair.first.name, pair.second.name, "difference in points, 95%"),
        tuple(rows),
        f"Episodes that ever got there, {kind}. Each interval is 95% by itself: of many rows, some miss.",
    )


def _stage_rates(comparison: Comparison) -> Section:
    rows = []
    for stage, judge in stage_judges(comparison.runs).items():
        counts = ((sum(map(judge, one.scored.values())), len(one.scored)) for one in comparison.runs)
        rows.append((stage, *(f"{reached}/{of}" + (f" = {reached / of:.0%}" if of else "") for reached, of in counts)))
    return Section("Stage by stage", ("stage", *(one.name for one in comparison.runs)), tuple(rows))


def points(difference: Difference) -> str:
    """`+12 [3, 21]`, the 95% interval beside the difference, or `-` where nothing is known."""
    if difference.value is None:
        return "-"
    return f"{round(difference.value * 100):+d} {interval_text(difference.interval)}"
