"""The report, built from a directory alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sim_client.episode.record import CameraStatistics, EpisodeRecord, Provenance, WallTime
from sim_client.results.directory import ResultsDirectory
from sim_client.results.report import write_report

PROVENANCE = Provenance("tiny/test/9", "hash", 0, {}, {}, ())


def episode(index: int, outcome: str, at_end: bool = False, **changes: object) -> EpisodeRecord:
    once = outcome == "success"
    base = EpisodeRecord(
        index=index,
        seed=index,
        env_id="PushCube-v1",
        outcome=outcome,
        success_once=once,
        success_at_end=at_end,
        steps=10 + index,
        provenance=PROVENANCE,
        first_success=5 if once else None,
        chunks=2,
        wall=WallTime(1.0, 2.0, 1.0, 5.0),
        stages={"is_grasped": 3 if once else None},
        state_outside_share=0.1,
        cameras={"observation/image": CameraStatistics((10.0, 10.0, 10.0), (1.0, 1.0, 1.0))},
        round_trip_ms=(10.0, 30.0),
        infer_ms=(8.0, 20.0),
    )
    return replace(base, **changes)


@pytest.fixture
def report(describe_run, tmp_path: Path) -> Callable[..., str]:
    def build(*records: EpisodeRecord, **changes: object) -> str:
        with ResultsDirectory(tmp_path / "out", describe_run(**changes)) as directory:
            for one in records:
                directory.append(one)
        write_report(tmp_path / "out")
        return (tmp_path / "out" / "report.md").read_text()

    return build


FOUR = (episode(0, "success", at_end=True), episode(1, "success"), episode(2, "timeout"), episode(3, "failure"))


def test_the_headline_names_its_success_and_both_have_intervals(report):
    first = report(*FOUR).splitlines()[0]
    assert first == (
        "# PushCube-v1: success_once 2/4 = 50% [15%, 85%], success_at_end (10 steps after success) 1/4 = 25% [5%, 70%]"
    )


def test_the_end_is_the_limit_when_episodes_run_to_it(report):
    first = report(*FOUR, settle_steps=None).splitlines()[0]
    assert first == "# PushCube-v1: success_once 2/4 = 50% [15%, 85%], success_at_end 1/4 = 25% [5%, 70%]"


def test_the_time_of_void_attempts_is_stated(report):
    text = report(*FOUR[:2], replace(FOUR[2], lost_s=2.5), replace(FOUR[3], outcome="error", lost_s=4.0))
    assert "Void attempts, in no row above: 6.5 s, waiting to begin anew included." in text


def test_errors_are_in_no_denominator_silently(report):
    text = report(*FOUR[:3], episode(3, "error", error="unavailable: gone"))
    assert "success_once 2/3 = 67%" in text
    assert "1 ended in an error (counted as failures: 2/4 = 50% [15%, 85%])" in text.splitlines()[0]
    assert "| error | 1 | infrastructure" in text
    assert "unavailable: gone |" in text


def test_an_unfinished_run_says_so(report):
    assert "2 of 4 episodes are still to run" in report(*FOUR[:2]).splitlines()[0]


def test_a_run_without_episodes_has_a_report_too(report):
    assert "success_once 0/0" in report().splitlines()[0]


def test_stages_lengths_times_latency_and_drift_are_shown(report):
    text = report(*FOUR)
    for part in (
        "| is_grasped | 2/4 = 50% [15%, 85%] |",
        "Episode length in steps: min 10, q50 11.5, q95 12.85, max 13.",
        "| rendering | 8.0 | 40% |",
        "| other | 4.0 | 20% |",
        "| round trip (client) | 20.0 ms | 30.0 ms | 8 |",
        "outside the training q01 to q99: 10.0%",
        "| `observation/image` | 10, 10, 10 | 20, 20, 20 | 1, 1, 1 | 5, 5, 5 |",
    ):
        assert part in text


def test_overrides_and_mismatches_stand_in_the_report(report):
    text = report(*FOUR, camera_size=(32, 32), prompt="Push.", allow_mismatch=("observation.cameras",))
    assert "- Override `--camera-size 32x32`" in text
    assert "- **Mismatch allowed**: observation.cameras.base_camera.size: the policy has 64x64, the simulator" in text
    assert "- Note: The prompt 'Push.' was not seen in training" in text


def test_a_run_as_trained_says_that_nothing_was_changed(report):
    assert "None: the simulation is the one that the policy was trained in." in report(*FOUR)


def test_the_command_can_be_pasted_into_a_shell(report):
    assert "```\nsim-client --env PushCube-v1 --prompt 'two words'\n```" in report(*FOUR)


def test_every_episode_has_a_row(report):
    rows = [line for line in report(*FOUR).splitlines() if line.startswith(("| 1 |", "| 2 |", "| 3 |", "| 4 |"))]
    assert rows[0] == "| 1 | 0 | success | step 5 | yes | 10 | 2 | 5.0 | 1 |  |"
    assert len(rows) == 4
