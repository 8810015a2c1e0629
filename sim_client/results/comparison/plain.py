"""A comparison as JSON."""

from __future__ import annotations

from typing import Any

from policy_protocol.json_tree import to_json
from sim_client.results.comparison.comparison import Comparison
from sim_client.results.comparison.run import ComparedRun
from sim_client.results.comparison.stages import stage_judges
from sim_client.results.comparison.verdict import GOAL, Verdict
from sim_client.results.summary import HEADLINE
from sim_client.statistics.difference import Difference
from sim_client.statistics.paired import PairedDifference

__all__ = ["comparison_json", "difference_json"]


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """What `sim-client compare --json` prints; rates and differences are shares from -1 to 1."""
    return {
        "env_id": comparison.env_id,
        "headline": HEADLINE,
        "result": comparison.sentence,
        "warnings": list(comparison.warnings),
        "runs": [_run(one) for one in comparison.runs],
        "pairs": [_pair(verdict) for verdict in comparison.verdicts],
    }


def _run(one: ComparedRun) -> dict[str, Any]:
    summary = one.summary.to_json()
    return {
        "name": one.name,
        "directory": str(one.directory),
        "checkpoint": one.run.checkpoint,
        "success_once": summary["success_once"],
        "success_at_end": summary["success_at_end"],
        "errors": len(one.errors),
    }


def _pair(verdict: Verdict) -> dict[str, Any]:
    pair, difference = verdict.pair, verdict.difference
    return {
        "first": pair.first.name,
        "second": pair.second.name,
        "paired": pair.paired,
        "left_out": list(pair.left_out) if pair.paired else [],
        "counts": to_json(difference) if isinstance(difference, PairedDifference) else None,
        **difference_json(difference),
        "p_value": difference.p_value,
        "p_value_holm": verdict.p_adjusted,
        "told_apart": verdict.told_apart,
        f"more_episodes_for_{GOAL * 100:.0f}_points": difference.more_episodes(GOAL),
        "result": str(verdict),
        "stages": {name: difference_json(pair.difference(judge)) for name, judge in _judges(verdict)},
    }


def _judges(verdict: Verdict) -> Any:
    return stage_judges((verdict.pair.first, verdict.pair.second)).items()


def difference_json(difference: Difference) -> dict[str, Any]:
    """Both rates, their difference and its interval."""
    low, high = difference.interval
    return {
        "rates": [str(difference.first), str(difference.second)],
        "difference": difference.value,
        "interval_95": [round(low, 4), round(high, 4)],
    }
