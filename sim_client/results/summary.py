"""The numbers of a run, computed from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from policy_protocol.json_tree import to_json
from sim_client.episode.record import CameraStatistics, EpisodeRecord, Outcome, WallTime
from sim_client.results.anytime import AnytimeInterval
from sim_client.results.run_record import RunRecord
from sim_client.results.throughput import Throughput, throughput
from sim_client.statistics.rate import Rate
from sim_client.tasks import TASKS

__all__ = ["HEADLINE", "Latency", "Summary", "summarize"]

HEADLINE = "success_once"
"""The success that the first line reports. Unlike success_at_end it does not depend on when an episode is stopped."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds per request; None when nothing was measured."""

    p50: float | None
    p95: float | None
    requests: int


@dataclass(frozen=True)
class Summary:
    """What the report and `--json` show."""

    planned: int
    """Episodes on the list; of a run that was stopped when it was sure, those up to there."""
    missing: int
    """Episodes on the list that have no record yet."""
    outcomes: Mapping[str, int]
    success_once: Rate
    """Over the scored episodes: those that did not end in an error."""
    anytime: AnytimeInterval | None
    """The interval on success_once that counts where the run was to stop when sure; None for every other run."""
    success_at_end: Rate
    success_once_of_all: Rate
    """The same with every error counted as a failure."""
    stages: Mapping[str, Rate]
    """Flag of the task -> in how many scored episodes it ever turned true, in the order of the task."""
    first_steps: Mapping[str, float]
    """Flag, or `success` -> median step at which it first turned true, over the episodes where it did."""
    steps: Mapping[str, float]
    """Quantiles of the episode length: `min`, `q50`, `q95`, `max`."""
    wall: WallTime
    """Summed over the scored episodes."""
    lost_s: float
    """Seconds that went into void attempts, summed over all episodes."""
    repeated: int
    """Episodes that were begun more than once."""
    throughput: Throughput
    round_trip: Latency
    """Measured by the client."""
    infer: Latency
    """Device time, as the server reports it."""
    clipped_share: float | None
    held_share: float | None
    """Share of steps at which the robot held still because the next chunk was not there; None without a clock."""
    delay_steps: Mapping[str, float]
    """Quantiles of the control steps that a reply took on the robot's clock; empty without a clock."""
    state_outside_share: float | None
    state_outside_by_dimension: tuple[float, ...]
    """The same for each number of the state, in the spec's order; empty when it was not recorded."""
    cameras: Mapping[str, CameraStatistics]
    """Mean over episodes."""

    @property
    def other_s(self) -> float:
        """Seconds of the scored episodes that were neither physics, rendering, waiting nor filming."""
        wall = self.wall
        return max(0.0, wall.total_s - wall.simulate_s - wall.render_s - wall.wait_s - wall.film_s)

    def to_json(self) -> dict[str, Any]:
        """Plain values; every rate with its value and interval."""
        plain: dict[str, Any] = to_json(self)
        for name in ("success_once", "success_at_end", "success_once_of_all"):
            plain[name] = _rate_json(getattr(self, name))
        del plain["anytime"]
        plain["anytime_interval_95"] = None if self.anytime is None else [self.anytime.low, self.anytime.high]
        plain["stages"] = {flag: _rate_json(rate) for flag, rate in self.stages.items()}
        return {"headline": HEADLINE, **plain}


def summarize(run: RunRecord, records: Sequence[EpisodeRecord]) -> Summary:
    """Count.

    Args:
        records: one final record per finished episode.
    """
    scored = [record for record in records if record.outcome != "error"]
    successes = sum(record.success_once for record in scored)
    return Summary(
        planned=len(run.counted_seeds),
        missing=len(run.counted_seeds) - len(records),
        outcomes={kind: sum(record.outcome == kind for record in records) for kind in get_args(Outcome)},
        success_once=Rate(successes, len(scored)),
        anytime=AnytimeInterval.of(run, scored),
        success_at_end=Rate(sum(record.success_at_end for record in scored), len(scored)),
        success_once_of_all=Rate(successes, len(records)),
        stages=_stages(run.options.env_id, scored),
        first_steps=_first_steps(scored),
        steps=_quantiles([record.steps for record in scored]),
        wall=_wall(scored),
        lost_s=round(sum(record.lost_s for record in records), 3),
        repeated=sum(record.attempts > 1 for record in records),
        throughput=throughput(records, vectorised=run.settings.sim_backend == "gpu"),
        round_trip=_latency([value for record in scored for value in record.round_trip_ms]),
        infer=_latency([value for record in scored for value in record.infer_ms]),
        clipped_share=_mean([record.clipped_share for record in scored]),
        held_share=_held(scored),
        delay_steps=_quantiles([delay for record in scored for delay in record.delay_steps]),
        state_outside_by_dimension=_by_dimension(scored),
        state_outside_share=_mean([r.state_outside_share for r in scored if r.state_outside_share is not None]),
        cameras=_cameras(scored),
    )


def _stages(env_id: str, scored: Sequence[EpisodeRecord]) -> dict[str, Rate]:
    reported = dict.fromkeys(flag for record in scored for flag in record.stages)
    known = TASKS[env_id].stages if env_id in TASKS else ()
    ordered = [flag for flag in known if flag in reported] + [flag for flag in reported if flag not in known]
    return {flag: Rate(sum(record.stages.get(flag) is not None for record in scored), len(scored)) for flag in ordered}


def _first_steps(scored: Sequence[EpisodeRecord]) -> dict[str, float]:
    steps: dict[str, list[int]] = {}
    for record in scored:
        for flag, step in (*record.stages.items(), ("success", record.first_success)):
            if step is not None:
                steps.setdefault(flag, []).append(step)
    return {flag: float(np.median(every)) for flag, every in steps.items()}


def _held(scored: Sequence[EpisodeRecord]) -> float | None:
    clocked = [record for record in scored if record.chunk_use is not None and record.chunk_use.has_clock]
    steps = sum(record.steps for record in clocked)
    return sum(record.held_steps for record in clocked) / steps if steps else None


def _by_dimension(scored: Sequence[EpisodeRecord]) -> tuple[float, ...]:
    known = [record.state_outside_by_dimension for record in scored if record.state_outside_by_dimension]
    return tuple(round(float(value), 4) for value in np.mean(known, axis=0)) if known else ()


def _quantiles(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {}
    quantiles = {"min": 0.0, "q50": 0.5, "q95": 0.95, "max": 1.0}
    return {name: float(np.quantile(values, share)) for name, share in quantiles.items()}


def _wall(scored: Sequence[EpisodeRecord]) -> WallTime:
    names = ("simulate_s", "render_s", "wait_s", "film_s", "total_s")
    return WallTime(**{name: round(sum(getattr(record.wall, name) for record in scored), 3) for name in names})


def _latency(milliseconds: Sequence[float]) -> Latency:
    if not milliseconds:
        return Latency(None, None, 0)
    p50, p95 = (round(float(np.quantile(milliseconds, share)), 2) for share in (0.5, 0.95))
    return Latency(p50, p95, len(milliseconds))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _cameras(scored: Sequence[EpisodeRecord]) -> dict[str, CameraStatistics]:
    seen: dict[str, list[CameraStatistics]] = {}
    for record in scored:
        for key, statistics in record.cameras.items():
            seen.setdefault(key, []).append(statistics)
    return {
        key: CameraStatistics(_channels([one.mean for one in every]), _channels([one.std for one in every]))
        for key, every in seen.items()
    }


def _channels(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(round(float(value), 2) for value in np.mean(rows, axis=0))


def _rate_json(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {
        "successes": rate.successes,
        "episodes": rate.episodes,
        "value": rate.value,
        "interval_95": [round(low, 4), round(high, 4)],
        "text": str(rate),
    }
