"""A run that may stop early counts the list's beginning, whoever finished first."""

from __future__ import annotations

import json

import pytest
from fake_policy_server import chunk_of

from sim_client.episode.record import EpisodeRecord, Provenance
from sim_client.evaluation.stopping import StopRule
from sim_client.results.directory import read_results
from sim_client.statistics.sequence import ConfidenceSequence

PROVENANCE = Provenance("tiny/test/9", "hash", 0, {}, {}, ())


def record(seed: int, success: bool, outcome: str | None = None) -> EpisodeRecord:
    kind = outcome or ("success" if success else "timeout")
    return EpisodeRecord(seed, seed, "PushCube-v1", kind, success, success, 10, PROVENANCE)  # type: ignore[arg-type]


def episodes_until_sure(width: float) -> int:
    """Successes in a row until the interval is narrower than `width`."""
    sequence, count = ConfidenceSequence(), 0
    while sequence.width > width:
        sequence.add(True)
        count += 1
    return count


def test_episodes_count_in_the_order_of_the_list_as_far_as_it_has_no_gap():
    enough = episodes_until_sure(0.4)
    rule = StopRule(range(100), 0.4)
    assert rule.sure_after([record(seed, True) for seed in range(1, 100)]) is None
    assert rule.interval == (0.0, 1.0)
    assert rule.sure_after([record(0, True)]) == enough


def test_what_lies_behind_the_stop_changes_nothing():
    enough = episodes_until_sure(0.4)
    rule = StopRule(range(100), 0.4)
    rule.sure_after([record(seed, seed < enough) for seed in range(100)])
    low, high = rule.interval
    assert high - low <= 0.4
    assert rule.sure_after([]) == enough


def test_an_error_is_no_verdict_and_holds_the_count_up():
    rule = StopRule(range(100), 0.4)
    assert rule.sure_after([record(0, False, "error"), *(record(seed, True) for seed in range(1, 100))]) is None


def test_a_run_that_is_sure_stops_says_so_and_is_not_gone_on_with(spec, start_server, sim_client, tmp_path):
    server = start_server(lambda request: chunk_of(spec, request, 0.25))
    command = ("--env", "PushCube-v1", "--episodes", 100, "--server", server.url, "--workers", 0, "--out", "out")
    command += ("--stop-when-sure", 0.5)
    code, output, errors = sim_client(*command, "--json")
    assert code == 0, errors
    run, records = read_results(tmp_path / "out")
    enough = episodes_until_sure(0.5)
    assert (run.stopped_after, len(records)) == (enough, enough)
    result = json.loads(output)
    assert result["stopped_after"] == enough
    assert result["anytime_interval_95"] == pytest.approx(list(run.sure_interval or ()), abs=1e-3)
    server.requests.clear()
    assert sim_client(*command)[0] == 0
    assert server.requests == []


def test_a_width_that_is_none_is_refused(sim_client):
    code, _, errors = sim_client("--env", "PushCube-v1", "--stop-when-sure", 5)
    assert code == 2
    assert errors == (
        "sim-client: --stop-when-sure must be the width of an interval between 0 and 1, not 5. "
        "0.2 stops at plus or minus 10 points.\n"
    )
