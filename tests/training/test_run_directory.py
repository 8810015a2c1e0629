"""What a run's folder holds beside its steps survives a full disk, and says so when it is damaged."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from training.checkpoints import CannotResume
from training.experiments import find_experiment
from training.run_directory import MetricsLog, RunExists, RunFacts, begin_run, check_run, join_run

EXPERIMENT = find_experiment("pi05_maniskill_stackcube_small")
FACTS = RunFacts("fingerprint", "tokenizer", skipped_frames=3, sample_rows="rows")


def begin(folder, experiment=EXPERIMENT, *, overwrite=False, resume=False):
    return begin_run(folder, experiment, FACTS, overwrite=overwrite, resume=resume)


@pytest.fixture
def run(tmp_path):
    begin(tmp_path / "run")
    return tmp_path / "run"


def test_a_run_notes_its_facts_and_keeps_them_when_it_goes_on(run):
    facts = json.loads((run / "run.json").read_text())
    assert facts == {
        "dataset_fingerprint": "fingerprint",
        "tokenizer_hash": "tokenizer",
        "run_id": facts["run_id"],
        "skipped_frames": 3,
        "sample_rows": "rows",
    }
    assert begin(run, resume=True).run_id == facts["run_id"]


def test_a_run_of_before_frames_were_counted_goes_on(run):
    facts = json.loads((run / "run.json").read_text())
    del facts["skipped_frames"]
    (run / "run.json").write_text(json.dumps(facts))
    assert begin(run, resume=True).skipped_frames == 0


def test_a_run_goes_on_and_is_joined_only_with_the_frames_that_it_began_with(run):
    """Otherwise the processes would train on rows of other batches, and a resumed run on others than it would have."""
    other = dataclasses.replace(FACTS, skipped_frames=5, sample_rows="other rows")
    run_id = json.loads((run / "run.json").read_text())["run_id"]
    for enter in (
        lambda: begin_run(run, EXPERIMENT, other, overwrite=False, resume=True),
        lambda: join_run(run, other, run_id),
    ):
        with pytest.raises(CannotResume) as error:
            enter()
        assert error.value.message == (
            f"The run {run} began without 3 frames that could not be decoded; here 5 cannot be, and the rows that are "
            "left to train on are not the same. Every process and every --resume needs the same ones: copy the dataset "
            "from where the run began, or start anew with --overwrite or another --exp-name."
        )


def test_a_run_of_before_its_rows_were_noted_goes_on(run):
    facts = json.loads((run / "run.json").read_text())
    del facts["sample_rows"]
    (run / "run.json").write_text(json.dumps(facts))
    assert begin(run, resume=True).sample_rows == ""


def test_going_on_without_room_leaves_the_settings_that_it_needs_to_go_on_later(run, no_room_for_files_beyond):
    before = (run / "experiment.json").read_text()
    longer = dataclasses.replace(EXPERIMENT, steps=900)
    with no_room_for_files_beyond(100), pytest.raises(OSError, match="File too large"):
        begin(run, longer, resume=True)
    assert (run / "experiment.json").read_text() == before
    begin(run, longer, resume=True)


def test_a_run_that_found_no_room_to_begin_can_be_begun_anew(tmp_path, no_room_for_files_beyond):
    folder = tmp_path / "run"
    with no_room_for_files_beyond(2_000), pytest.raises(OSError, match="File too large"):
        begin_run(
            folder,
            EXPERIMENT,
            dataclasses.replace(FACTS, dataset_fingerprint="f" * 3_000),
            overwrite=False,
            resume=False,
        )
    with pytest.raises(CannotResume) as error:
        begin(folder, resume=True)
    assert error.value.message == (
        f"{folder / 'run.json'} is missing or damaged ([Errno 2] No such file or directory: '{folder / 'run.json'}'). "
        "Start anew with --overwrite."
    )
    begin(folder, overwrite=True)


def test_a_run_that_found_no_room_at_all_leaves_nothing_behind_and_begins_without_a_flag(
    tmp_path, no_room_for_files_beyond
):
    with no_room_for_files_beyond(100), pytest.raises(OSError, match="File too large"):
        begin(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    begin(tmp_path / "run")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_was_killed_as_it_began_is_begun_anew(tmp_path, overwrite):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.json.new").write_text('{"na')
    begin(tmp_path / "run", overwrite=overwrite)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["experiment.json", "run.json"]


def half_deleted(folder):
    (folder / "experiment.json").unlink()
    raise KeyboardInterrupt


def test_a_run_that_was_killed_while_it_deleted_the_one_before_begins_anew_and_deletes_the_rest(run, monkeypatch):
    (run / "9").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half_deleted)
        with pytest.raises(KeyboardInterrupt):
            begin(run, overwrite=True)
    begin(run)
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    assert not (run / "9").exists()


def test_settings_cut_short_are_told(run):
    (run / "experiment.json").write_text('{"name": ')
    with pytest.raises(CannotResume) as error:
        check_run(run, EXPERIMENT, overwrite=False, resume=True)
    assert error.value.message == (
        f"{run / 'experiment.json'} is missing or damaged (Expecting value: line 1 column 10 (char 9)). "
        "Start anew with --overwrite."
    )


def test_facts_of_another_kind_are_told(run):
    (run / "run.json").write_text("[]")
    with pytest.raises(CannotResume) as error:
        begin(run, resume=True)
    assert error.value.message.startswith(f"{run / 'run.json'} is damaged: ")
    assert error.value.message.endswith(" Start anew with --overwrite.")


def test_a_folder_with_neither_is_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(RunExists):
        check_run(tmp_path, EXPERIMENT, overwrite=True, resume=False)


@pytest.fixture
def lines(tmp_path):
    """Nine logged steps, and a line that a kill cut short."""
    whole = "".join(json.dumps({"step": step, "loss": 0.5}) + "\n" for step in range(9))
    (tmp_path / "metrics.jsonl").write_text(whole + '{"step": 9, "lo')
    return tmp_path / "metrics.jsonl"


def test_lines_beyond_the_step_that_a_run_goes_on_with_are_dropped_and_told_anew(lines, tmp_path):
    log = MetricsLog(tmp_path, from_step=7)
    log.write({"step": 7, "loss": 0.25})
    log.close()
    assert [json.loads(line)["step"] for line in lines.read_text().splitlines()] == list(range(8))


def test_no_line_is_lost_where_there_is_no_room_to_drop_some(lines, tmp_path, no_room_for_files_beyond):
    before = lines.read_text()
    with no_room_for_files_beyond(100), pytest.raises(OSError, match="File too large"):
        MetricsLog(tmp_path, from_step=7)
    assert lines.read_text() == before
