"""Workers may crash, hang and be killed; every job is finished, or reported lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_workshop import Jobs, Squares

from sim_client.crew.inline import InlineCrew
from sim_client.crew.processes import ProcessCrew
from sim_client.errors import SimulationError, WorkersFailed


def crew_of(size: int, folder: Path, **options: float) -> ProcessCrew:
    return ProcessCrew(Squares(folder), folder, size, **options)


def test_every_job_is_done_once_by_some_worker(tmp_path):
    jobs = Jobs(*range(20)).run(crew_of(2, tmp_path))
    assert jobs.squares == {number: number * number for number in range(20)}
    assert set(jobs.facts) == {"a table of squares"}
    assert jobs.lost == []


def test_a_killed_workers_job_comes_back_and_another_worker_does_it(tmp_path):
    (tmp_path / "fate_3").write_text("SIGKILL")
    jobs = Jobs(1, 2, 3, 4, 5).run(crew_of(2, tmp_path))
    assert jobs.squares == {1: 1, 2: 4, 3: 9, 4: 16, 5: 25}
    assert jobs.lost == [(3, "the worker died by SIGKILL")]


@pytest.mark.parametrize("fate", ["SIGSTOP", "half_a_message"])
def test_a_worker_that_hangs_is_killed_when_its_patience_is_over(tmp_path, fate):
    (tmp_path / "fate_2").write_text(fate)
    jobs = Jobs(1, 2).run(crew_of(1, tmp_path, silence_s=2.0))
    assert jobs.squares == {1: 1, 2: 4}
    assert jobs.lost == [(2, "the worker gave no sign of life for 2 s")]


def test_an_error_in_the_work_is_told_with_the_last_line_that_was_printed(tmp_path):
    (tmp_path / "fate_1").write_text("raise")
    jobs = Jobs(1).run(crew_of(1, tmp_path))
    assert jobs.squares == {1: 1}
    assert jobs.lost == [(1, "the worker died with exit code 1: ValueError: it is odd")]


def test_workers_that_die_whatever_they_are_given_end_the_run(tmp_path):
    (tmp_path / "fate_1").write_text("SIGKILL always")
    with pytest.raises(WorkersFailed, match=r"failed 6 times in a row, the last time because the worker died by SIGK"):
        Jobs(1).run(crew_of(1, tmp_path))


@pytest.mark.parametrize("crew", [lambda folder: crew_of(2, folder), lambda folder: InlineCrew(Squares(folder))])
def test_tools_that_cannot_be_set_up_end_the_run_with_their_error(tmp_path, crew):
    (tmp_path / "broken").touch()
    with pytest.raises(SimulationError, match=r"^The tools are broken\.$"):
        Jobs(1).run(crew(tmp_path))


@pytest.mark.parametrize("crew", [lambda folder: crew_of(1, folder), lambda folder: InlineCrew(Squares(folder))])
def test_what_the_work_tells_arrives(tmp_path, crew):
    notes: list[tuple[int, str]] = []
    jobs = Jobs(4, 5).run(crew(tmp_path), lambda worker, note: notes.append((worker, note)))
    assert jobs.squares == {4: 16, 5: 25}
    assert notes == [(0, "at 4"), (0, "at 5")]
