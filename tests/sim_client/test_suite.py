"""Several tasks in one command: each counted by itself, and none lost because another one failed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from drawn_once import plots_drawn_once
from fake_environment import FakeEnvironment
from fake_policy_server import chunk_of

import sim_client.simulator
from sim_client import read_results
from sim_client.errors import IncompleteRun, Interrupted, InvalidOption, RecordsError
from sim_client.evaluation.suite import SUITES, chosen_tasks
from sim_client.results.report import html
from sim_client.tasks import TASKS

THREE = "PushCube-v1,PullCube-v1,PlaceSphere-v1"
TWO = "PushCube-v1,PullCube-v1"


@pytest.fixture(autouse=True)
def one_drawing(monkeypatch):
    monkeypatch.setattr(html, "_plots", plots_drawn_once)


@pytest.fixture
def of_all(spec):
    """A policy that was trained on three tasks."""
    prompts = tuple(TASKS[name].prompt for name in THREE.split(","))
    observation = replace(spec.observation, prompt=replace(spec.observation.prompt, trained=prompts))
    simulation = replace(spec.simulation, env_ids=tuple(THREE.split(",")))
    return replace(spec, observation=observation, simulation=simulation)


def good_at(spec, *prompts):
    """Answers with success in the tasks of these prompts."""

    def answer(request):
        return chunk_of(spec, request, 0.25 if request.observation["prompt"] in prompts else 0.0)

    return answer


@pytest.fixture
def server(of_all, start_server):
    return start_server(good_at(of_all, TASKS["PushCube-v1"].prompt, TASKS["PlaceSphere-v1"].prompt), of=of_all)


def breaks_at(env_id, error=KeyboardInterrupt):
    """The fake environment, but not for one task."""

    def make(settings):
        if settings.env_id == env_id:
            raise error
        return FakeEnvironment(settings)

    return make


def test_a_suite_is_the_projects_six_tasks_and_tasks_can_be_listed():
    assert chosen_tasks(None, "maniskill6") == SUITES["maniskill6"] == tuple(TASKS)
    assert chosen_tasks("A-v1, B-v1,", None) == ("A-v1", "B-v1")
    assert chosen_tasks(None, None) == ()


@pytest.mark.parametrize(
    ("env", "suite", "message"),
    [
        ("A-v1,B-v1,A-v1", None, "--env names A-v1 twice. Name each task once."),
        ("A-v1", "maniskill6", "--env and --suite both choose tasks. Pass one of them."),
        (
            None,
            "maniskill7",
            "--suite maniskill7: there is no such suite. Did you mean 'maniskill6'? Or name tasks: --env A,B,C.",
        ),
    ],
)
def test_a_choice_of_tasks_that_is_none_is_refused(env, suite, message):
    with pytest.raises(InvalidOption) as error:
        chosen_tasks(env, suite)
    assert error.value.message == message


def test_every_task_has_its_directory_and_all_have_one_table(server, command, tmp_path):
    ended = command("--env", THREE, "--episodes", 2, "--server", server.url)
    assert ended.error is None
    folder = tmp_path / "results/suite-tiny-test-9-seed0"
    for name in THREE.split(","):
        run, records = read_results(folder / name)
        assert (run.options.env_id, run.prompt, len(records)) == (name, TASKS[name].prompt, 2)
        assert (folder / name / "report.html").exists()
    lines = ended.output.splitlines()
    assert lines[0].split() == ["task", "success_once", "success_at_end", "steps", "episodes/min", "errors"]
    assert [line.split()[0:3] for line in lines[1:4]] == [
        ["PushCube-v1", "2/2", "="],
        ["PullCube-v1", "0/2", "="],
        ["PlaceSphere-v1", "2/2", "="],
    ]
    assert lines[-2].startswith("Mean of 3 task rates: 67%; as every task has the same number of episodes it is 4/6")
    assert lines[-1] == "Report: results/suite-tiny-test-9-seed0/suite.html"
    assert "Task 2 of 3: PullCube-v1\n" in ended.errors
    assert "[report](PullCube-v1/report.html)" in (folder / "suite.md").read_text()


def test_the_suite_as_json_has_every_task_and_the_total(server, command):
    ended = command("--env", TWO, "--episodes", 1, "--server", server.url, "--out", "out", "--json")
    suite = json.loads(ended.output)
    assert (suite["directory"], suite["report"], suite["failed"]) == ("out", "out/suite.md", {})
    assert [(task["env_id"], task["success_once"]["successes"]) for task in suite["tasks"]] == [
        ("PushCube-v1", 1),
        ("PullCube-v1", 0),
    ]
    assert suite["total"]["tasks"] == 2


def test_a_task_that_the_policy_does_not_know_fails_and_the_others_are_measured(spec, start_server, command, tmp_path):
    server = start_server(lambda request: chunk_of(spec, request, 0.25))
    ended = command("--env", "PullCube-v1,PushCube-v1", "--episodes", 2, "--server", server.url, "--out", "out")
    assert isinstance(ended.error, IncompleteRun)
    assert ended.error.message == (
        "1 of 2 tasks have no whole result:\n"
        "  PullCube-v1: The simulation differs from the training of tiny/test/9:\n"
        "What is finished is kept in out. Running the same command again goes on from there."
    )
    assert "PullCube-v1 failed: The simulation differs from the training" in ended.errors
    assert "simulation.env_ids: the policy has PushCube-v1, the simulator PullCube-v1." in ended.errors
    assert "Mean of 1 task rates: 100% (1 of 2 have no episode with a verdict and are left out)" in ended.output
    assert [one.outcome for one in read_results(tmp_path / "out/PushCube-v1")[1]] == ["success"] * 2
    page = (tmp_path / "out/suite.html").read_text()
    assert "Without a result, or without a whole one" in page
    assert "simulation.env_ids" in page


def test_a_mismatch_that_is_allowed_by_name_is_allowed_for_every_task(spec, start_server, command, tmp_path):
    server = start_server(lambda request: chunk_of(spec, request, 0.25))
    allowed = ("--allow-mismatch", "simulation.env_ids", "--prompt", "Move the cube.")
    ended = command(
        "--env", "PullCube-v1,PushCube-v1", "--episodes", 1, "--server", server.url, "--out", "out", *allowed
    )
    assert ended.error is None
    assert "Mismatches with training that were allowed: 1" in (tmp_path / "out/suite.md").read_text()


def test_an_environment_that_there_is_not_fails_alone(server, command, monkeypatch):
    monkeypatch.setitem(vars(sim_client.simulator), "env_ids", lambda: tuple(TASKS))  # reading it loads ManiSkill
    ended = command("--env", "PullCub-v1,PushCube-v1", "--episodes", 1, "--server", server.url, "--out", "out")
    assert "  PullCub-v1: Unknown environment 'PullCub-v1'. Did you mean 'PullCube-v1'?\n" in ended.error.message
    assert ended.error.exit_code == 1
    assert "PushCube-v1" in ended.output


def test_errors_in_one_task_are_told_and_the_same_command_repeats_them_only(of_all, start_server, command, tmp_path):
    broken = TASKS["PullCube-v1"].prompt

    def answer(request):
        return None if request.observation["prompt"] == broken and sick else chunk_of(of_all, request, 0.25)

    sick, server = True, start_server(answer, of=of_all)
    arguments = ("--env", TWO, "--episodes", 1, "--server", server.url, "--out", "out", "--retries", 0)
    ended = command(*arguments)
    assert "  PullCube-v1: 1 of 1 episodes ended in an infrastructure error.\n" in ended.error.message
    assert (
        "| PullCube-v1 | 1 of 1 episodes ended in an infrastructure error. |" in (tmp_path / "out/suite.md").read_text()
    )
    sick = False
    server.requests.clear()
    ended = command(*arguments)
    assert ended.error is None
    assert {request.observation["prompt"] for request in server.requests} == {broken}
    assert "Mean of 2 task rates: 100%" in ended.output


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(server, command, tmp_path):
    arguments = ("--env", THREE, "--episodes", 1, "--server", server.url, "--out", "out")
    ended = command(*arguments, environment=breaks_at("PullCube-v1"))
    assert isinstance(ended.error, Interrupted)
    assert ended.error.message == (
        "Stopped. 0 of 1 episodes are finished and kept in out/PullCube-v1. Run the same command again to go on."
    )
    text = (tmp_path / "out/suite.md").read_text()
    assert "| PullCube-v1 | 1 of 1 episodes are still to run. |" in text
    assert "| PlaceSphere-v1 | Still to run. |" in text
    assert "Mean of 1 task rates: 100% (2 of 3 have no episode with a verdict and are left out)" in text
    server.requests.clear()
    assert command(*arguments).error is None
    asked = {request.observation["prompt"] for request in server.requests}
    assert asked == {TASKS["PullCube-v1"].prompt, TASKS["PlaceSphere-v1"].prompt}


def test_results_of_another_policy_in_the_folder_are_no_part_of_the_suite(of_all, server, start_server, command):
    arguments = ("--env", TWO, "--episodes", 1, "--out", "out")
    assert command(*arguments, "--server", server.url).error is None
    other = replace(of_all, policy=replace(of_all.policy, denoising_steps=3))
    ended = command(*arguments, "--server", start_server(of=other).url)
    assert "  PushCube-v1: out/PushCube-v1 holds the results of another run:\n" in ended.error.message
    assert ended.output == ""


def test_a_server_that_changes_its_policy_between_two_tasks_mixes_nothing(of_all, start_server, command, tmp_path):
    other = replace(of_all, policy=replace(of_all.policy, denoising_steps=3))

    def answer(request):
        server.spec = other  # connections from here on are greeted with it
        return chunk_of(of_all, request, 0.25)

    server = start_server(answer, of=of_all)
    ended = command("--env", TWO, "--episodes", 1, "--server", server.url, "--out", "out")
    assert "PullCube-v1 failed: " + server.url in ended.errors
    assert f"now serves another policy (tiny/test/9, spec {other.hash} instead of {of_all.hash})." in ended.errors
    assert "1 of 2 tasks have no whole result" in ended.error.message
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["PushCube-v1"]


def test_a_server_that_is_gone_ends_the_suite_with_its_message(of_all, start_server, command, tmp_path):
    def answer(request):
        if request.observation["prompt"] == TASKS["PullCube-v1"].prompt:
            server.refuse()
            return None
        return chunk_of(of_all, request, 0.25)

    server = start_server(answer, of=of_all)
    ended = command("--env", THREE, "--episodes", 1, "--server", server.url, "--out", "out", "--connect-timeout", 0.4)
    assert ended.error.message.startswith(f"No policy server answers at {server.url} (tried for 0.4 s;")
    assert "Task 3 of 3" not in ended.errors
    assert "| PlaceSphere-v1 | Still to run. |" in (tmp_path / "out/suite.md").read_text()


def test_a_page_that_cannot_be_written_names_what_writes_it(server, command, tmp_path):
    (tmp_path / "out/suite.md").mkdir(parents=True)
    ended = command("--env", TWO, "--episodes", 1, "--server", server.url, "--out", "out")
    assert isinstance(ended.error, RecordsError)
    assert ended.error.message == (
        "out/suite.md cannot be written: Is a directory. All finished episodes are kept. "
        "Once that is mended, the same command writes it and repeats no episode."
    )


def test_a_page_that_cannot_be_written_hides_no_ctrl_c(server, command, tmp_path):
    (tmp_path / "out/suite.md").mkdir(parents=True)
    arguments = ("--env", TWO, "--episodes", 1, "--server", server.url, "--out", "out")
    assert isinstance(command(*arguments, environment=breaks_at("PullCube-v1")).error, Interrupted)
