"""What is on disk after every episode, and what a damaged directory says."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sim_client.episode.record import CameraStatistics, EpisodeRecord, Provenance, WallTime
from sim_client.errors import RecordsError
from sim_client.results.directory import ResultsDirectory, default_directory, read_results
from sim_client.results.mismatch import Mismatch
from sim_client.results.records import EpisodeFile, final_records, read_records
from sim_client.results.run_record import RunRecord

PROVENANCE = Provenance("tiny/test/9", "hash", 0, {"numpy": "1"}, {"--prompt": "x"}, ("simulation.env_ids",))
BOUNDS = Mismatch("action.low", "[-1]", "[-2]", "The controller scales actions otherwise.")


def record(index: int, outcome: str = "success", **changes: object) -> EpisodeRecord:
    once = outcome == "success"
    base = EpisodeRecord(index, index, "PushCube-v1", outcome, once, once, 10, PROVENANCE)
    return replace(base, **changes)


def finish_one(run: RunRecord, tmp_path: Path) -> None:
    """Leave a directory `out` behind in which the first episode of `run` is finished."""
    with ResultsDirectory(tmp_path / "out", run) as directory:
        directory.append(record(0))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def run(*records: EpisodeRecord) -> Path:
        file = EpisodeFile(tmp_path / "episodes.jsonl")
        for one in records:
            file.append(one)
        file.close()
        return tmp_path / "episodes.jsonl"

    return run


def test_a_record_survives_the_way_to_disk_and_back(write):
    full = record(
        3,
        first_success=7,
        chunks=4,
        wall=WallTime(1.0, 2.0, 3.0, 6.5),
        stages={"is_grasped": 3, "is_static": None},
        state_outside_share=0.02,
        cameras={"observation/image": CameraStatistics((1.0, 2.0, 3.0), (0.5, 0.5, 0.5))},
        round_trip_ms=(5.0, 6.0),
        error="",
    )
    assert read_records(write(full)) == (full,)


def test_a_record_is_on_disk_before_the_next_episode_begins(tmp_path):
    file = EpisodeFile(tmp_path / "episodes.jsonl")
    file.append(record(0))
    assert len(read_records(tmp_path / "episodes.jsonl")) == 1
    file.close()


def test_a_half_written_last_line_is_cut_off_and_the_next_record_stands_alone(write):
    path = write(record(0), record(1))
    path.write_bytes(path.read_bytes()[:-20])
    assert [one.seed for one in read_records(path)] == [0]
    write(record(1), record(2))
    assert [one.seed for one in read_records(path)] == [0, 1, 2]


def test_a_damaged_line_in_the_middle_is_named(write):
    path = write(record(0), record(1))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{broken", lines[1]]) + "\n")
    with pytest.raises(RecordsError, match=r"episodes.jsonl, line 2 is not an episode record.*Delete that line"):
        read_records(path)


def test_a_field_of_the_wrong_type_is_named(write):
    path = write(record(0))
    line = {**json.loads(path.read_text()), "steps": "ten"}
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(RecordsError, match="'steps' must be a whole number"):
        read_records(path)


def test_each_seed_counts_once_and_an_error_gives_way_to_a_verdict():
    written = [record(1, "error"), record(0, "timeout"), record(0), record(1), record(2, "error")]
    assert [(one.seed, one.outcome) for one in final_records(written)] == [
        (0, "timeout"),
        (1, "success"),
        (2, "error"),
    ]


def test_void_attempts_before_a_resume_are_counted_with_those_after_it():
    written = [
        record(0, "error", attempts=3, lost_s=2.5),
        record(1, "error", attempts=1, lost_s=0.1),
        record(0, "error", attempts=2, lost_s=1.25),
        record(1, "error", attempts=1, lost_s=0.2),
        record(0, attempts=1, lost_s=0.0),
        record(2),
        record(2, attempts=5, lost_s=9.0),  # after a verdict nothing counts
    ]
    assert [(one.seed, one.outcome, one.attempts, one.lost_s) for one in final_records(written)] == [
        (0, "success", 6, 3.75),
        (1, "error", 2, 0.3),
        (2, "success", 1, 0.0),
    ]


def test_a_full_disk_stops_the_run_and_keeps_whole_lines(tmp_path):
    path = tmp_path / "episodes.jsonl"
    file = EpisodeFile(path)
    file.append(record(0))
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))  # Python ignores SIGXFSZ, so a write is cut short
    try:
        with pytest.raises(RecordsError, match=r"seed 1 cannot be written .*make room and run the same command again"):
            file.append(record(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == size
    file.append(record(1))
    assert [one.seed for one in read_records(path)] == [0, 1]
    file.close()


def test_the_default_directory_names_the_task_the_policy_and_the_seed(describe_run):
    path = default_directory(describe_run(seed=3))
    assert path == Path("results/PushCube-v1/tiny-test-9-seed3")


def test_a_run_survives_the_way_to_disk_and_back(describe_run, tmp_path):
    run = describe_run(camera_size=(32, 32), allow_mismatch=("observation.cameras",))
    run.write(tmp_path / "run.json")
    assert RunRecord.read(tmp_path / "run.json") == run


def test_the_same_command_goes_on_with_what_is_missing(describe_run, tmp_path):
    with ResultsDirectory(tmp_path / "out", describe_run()) as directory:
        directory.append(record(0))
        directory.append(record(1, "error"))
        assert directory.remaining() == ((2, 2), (3, 3), (1, 1))
    with ResultsDirectory(tmp_path / "out", describe_run()) as directory:
        assert [one.seed for one in directory.records()] == [0, 1]
        assert directory.remaining() == ((2, 2), (3, 3), (1, 1))


def test_another_run_in_the_same_directory_is_refused_with_the_differences(describe_run, tmp_path):
    finish_one(describe_run(), tmp_path)
    with pytest.raises(RecordsError, match=r"(?s)option run_seed: 0, now 1\n.*--out DIR .*--overwrite"):
        ResultsDirectory(tmp_path / "out", describe_run(run_seed=1))


def test_more_episodes_extend_a_run_and_the_extension_is_recorded(describe_run, tmp_path):
    finish_one(describe_run(), tmp_path)
    with ResultsDirectory(tmp_path / "out", describe_run(episodes=6)) as directory:
        assert len(directory.remaining()) == 5
    run, _ = read_results(tmp_path / "out")
    assert (run.options.episodes, run.extended_from) == (6, (4,))


def test_an_extension_adds_its_mismatches_to_the_record(describe_run, tmp_path):
    """Demonstrations were made from seeds 1000 and 1001: the first four episodes are new, the extension is not."""
    changes = {"seed": 996, "allow_mismatch": ("simulation.demonstration_seeds",)}
    with ResultsDirectory(tmp_path / "out", describe_run(**changes)) as directory:
        directory.append(record(0, seed=996))
        directory.note_mismatches([BOUNDS])
    ResultsDirectory(tmp_path / "out", describe_run(**changes, episodes=6)).close()
    run, _ = read_results(tmp_path / "out")
    assert [mismatch.field for mismatch in run.mismatches] == ["action.low", "simulation.demonstration_seeds"]
    assert run.provenance.allowed_mismatches == ("action.low", "simulation.demonstration_seeds")


def test_an_extension_adds_its_notices_to_the_record(describe_run):
    run = describe_run()
    first, second = replace(run, notices=("a", "b")), replace(describe_run(episodes=6), notices=("b", "c"))
    assert first.continued_by(second).notices == ("a", "b", "c")


def test_fewer_episodes_are_refused(describe_run, tmp_path):
    finish_one(describe_run(), tmp_path)
    with pytest.raises(RecordsError, match=r"has 4 planned episodes, and --episodes 2 asks for fewer"):
        ResultsDirectory(tmp_path / "out", describe_run(episodes=2))


def test_overwrite_begins_anew(describe_run, tmp_path):
    with ResultsDirectory(tmp_path / "out", describe_run()) as directory:
        directory.append(record(0))
    with ResultsDirectory(tmp_path / "out", describe_run(run_seed=1), overwrite=True) as directory:
        assert directory.records() == ()
        assert directory.run.options.run_seed == 1


def test_two_processes_cannot_write_to_one_directory(describe_run, tmp_path):
    with ResultsDirectory(tmp_path / "out", describe_run()):
        with pytest.raises(RecordsError, match=r"Another process \(id \d+\) is writing to"):
            ResultsDirectory(tmp_path / "out", describe_run())
    ResultsDirectory(tmp_path / "out", describe_run()).close()


def test_a_directory_with_other_files_is_not_touched(describe_run, tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter one")
    with pytest.raises(RecordsError, match=r"holds other files \(thesis.tex\).*Pass --out"):
        ResultsDirectory(tmp_path, describe_run(), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_disk_that_is_full_at_the_start_leaves_a_directory_that_can_be_used_later(describe_run, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(RecordsError, match=r"run\.json cannot be written: File too large\."):
            ResultsDirectory(tmp_path / "out", describe_run())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    ResultsDirectory(tmp_path / "out", describe_run()).close()


def test_the_draft_of_a_process_that_was_killed_is_passed_over(describe_run, tmp_path):
    (tmp_path / ".run.json.1234.draft").write_text("{half")
    ResultsDirectory(tmp_path, describe_run()).close()
    assert read_results(tmp_path)[1] == ()


def test_a_run_that_was_stopped_before_its_first_episode_leaves_no_trace(describe_run, tmp_path):
    ResultsDirectory(tmp_path / "out", describe_run()).close()
    with ResultsDirectory(tmp_path / "out", describe_run(run_seed=1)) as directory:
        assert directory.run.options.run_seed == 1


def test_episodes_without_their_run_are_refused(describe_run, tmp_path, write):
    write(record(0))
    with pytest.raises(RecordsError, match="holds episodes but no run.json"):
        ResultsDirectory(tmp_path, describe_run())


def test_a_directory_without_a_run_says_what_to_name(tmp_path):
    with pytest.raises(RecordsError, match=r"run.json cannot be read: No such file.*Name a directory that `sim-client"):
        read_results(tmp_path)


def test_results_of_another_version_say_how_to_go_on(describe_run, tmp_path):
    path = tmp_path / "run.json"
    describe_run().write(path)
    path.write_text(path.read_text().replace("chunkwire-evaluation/2", "chunkwire-evaluation/1"))
    message = (
        r"run\.json was written by another version of sim-client \(chunkwire-evaluation/1; this one writes "
        r"chunkwire-evaluation/2\)\. Pass --out DIR for a run of its own, or --overwrite to replace these results\.$"
    )
    with pytest.raises(RecordsError, match=message):
        RunRecord.read(path)
