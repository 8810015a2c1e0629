"""The same crew on a Ray cluster: two actors on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_policy_server import chunk_of
from toy_workshop import Jobs, Squares

from sim_client.crew.ray_actors import RayCrew
from sim_client.errors import InvalidOption, SimulationError
from sim_client.results.directory import read_results

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def the_actors_find_the_tests_modules(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def test_every_job_is_done_although_actors_are_killed_hang_and_raise(tmp_path):
    for number, fate in ((2, "SIGKILL"), (3, "SIGSTOP"), (5, "raise")):
        (tmp_path / f"fate_{number}").write_text(fate)
    jobs = Jobs(*range(8)).run(RayCrew(Squares(tmp_path), 2, None, silence_s=4.0))
    assert jobs.squares == {number: number * number for number in range(8)}
    assert sorted(jobs.lost) == [
        (2, "the worker died by a signal or for lack of memory"),
        (3, "the worker gave no sign of life for 4 s"),
        (5, "the worker died: ValueError: it is odd"),
    ]


def test_tools_that_cannot_be_set_up_end_the_run_with_their_error(tmp_path):
    (tmp_path / "broken").touch()
    with pytest.raises(SimulationError, match=r"^The tools are broken\.$"):
        Jobs(1).run(RayCrew(Squares(tmp_path), 1, None, silence_s=30.0))


def test_a_cluster_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidOption, match=r"--ray-address auto: no Ray cluster can be joined there \(.*`ray start"):
        RayCrew(Squares(tmp_path), 1, "auto", silence_s=30.0)


def test_an_evaluation_on_two_actors_has_the_results_of_one_process(spec, start_server, sim_client, tmp_path):
    server = start_server(lambda request: chunk_of(spec, request, 0.25 * (request.episode.seed % 2)))
    command = ("--env", "PushCube-v1", "--episodes", 6, "--server", server.url)
    code, _, errors = sim_client(*command, "--out", "ray", "--launcher", "ray", "--workers", 2)
    assert code == 0, errors
    assert sim_client(*command, "--out", "here", "--workers", 0)[0] == 0
    there, here = (
        [(one.seed, one.outcome, one.steps, one.action_hash) for one in read_results(tmp_path / name)[1]]
        for name in ("ray", "here")
    )
    assert there == here
    assert len(there) == 6
