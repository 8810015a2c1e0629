"""Each episode of the list is counted exactly once, whatever breaks on the way."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_environment import FakeEnvironment
from fake_policy_server import FakePolicyServer, chunk_of
from rich.console import Console

from policy_protocol import InferRequest
from policy_protocol.errors import ProtocolViolation, ServerUnavailable, SpecMismatch
from sim_client import read_results
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.run import run_evaluation
from sim_client.evaluation.staff import Staff
from sim_client.results.options import EvaluationOptions
from sim_client.results.report import write_report


def seeds_of(server: FakePolicyServer) -> list[int]:
    """The episodes that a server was asked about, in order, each once per visit."""
    visited: list[int] = []
    for request in server.requests:
        if request.episode.step == 0:
            visited.append(request.episode.seed)
    return visited


class Crashes:
    """Breaks the connection at one moment, `times` times; answers with success otherwise.

    Three times is what it takes: the client asks the same once more, and again, before it gives up.
    """

    def __init__(self, spec, seed: int, step: int, times: int = 3) -> None:
        self._spec, self._seed, self._step, self.left = spec, seed, step, times

    def __call__(self, request: InferRequest):
        if self.left and (request.episode.seed, request.episode.step) == (self._seed, self._step):
            self.left -= 1
            return None
        return chunk_of(self._spec, request, 0.25)


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., tuple]:
    """Run an evaluation on the fake environment: its directory's run and records."""

    def run(server: FakePolicyServer, make_environment=FakeEnvironment, connect_timeout: float = 5, **changes: object):
        options = EvaluationOptions(**{"env_id": "PushCube-v1", "episodes": 3, **changes})
        console = Console(stderr=True)
        run_evaluation(
            options,
            Dial(server.url, connect_timeout=connect_timeout),
            tmp_path / "out",
            staff=Staff(workers=0),
            console=console,
            open_environment=make_environment,
        )
        return read_results(tmp_path / "out")

    return run


def test_every_seed_of_the_list_is_run_once_in_order(spec, start_server, evaluate):
    server = start_server(lambda request: chunk_of(spec, request, 0.25 * (request.episode.seed % 2)))
    run, records = evaluate(server, seed=10, episodes=4)
    assert seeds_of(server) == [10, 11, 12, 13]
    assert [(one.index, one.seed, one.outcome) for one in records] == [
        (0, 10, "timeout"),
        (1, 11, "success"),
        (2, 12, "timeout"),
        (3, 13, "success"),
    ]
    assert {one.provenance.spec_hash for one in records} == {spec.hash}
    assert run.provenance == records[0].provenance


def test_an_episode_whose_connection_broke_is_run_again_from_its_start(spec, start_server, evaluate):
    server = start_server(Crashes(spec, seed=1, step=3))
    _, records = evaluate(server)
    assert seeds_of(server) == [0, 1, 1, 2]
    assert [(one.seed, one.outcome, one.attempts, one.steps) for one in records] == [
        (0, "success", 1, 14),
        (1, "success", 2, 14),
        (2, "success", 1, 14),
    ]


def test_a_repeated_episode_asks_with_the_same_noise(spec, start_server, evaluate):
    server = start_server(Crashes(spec, seed=1, step=3))
    evaluate(server)
    asked = [(one.episode.step, one.noise_seed) for one in server.requests if one.episode.seed == 1]
    assert [step for step, _ in asked][:6] == [0, 3, 3, 3, 0, 3]
    assert len(set(asked)) == len({step for step, _ in asked})


def test_an_episode_in_which_the_server_may_have_been_restarted_is_begun_anew(spec, start_server, evaluate):
    """The client asks again by itself, and is answered; but by which policy?"""
    server = start_server(Crashes(spec, seed=1, step=3, times=1))
    _, records = evaluate(server)
    assert seeds_of(server) == [0, 1, 1, 2]
    assert [(one.outcome, one.attempts, one.steps) for one in records] == [
        ("success", 1, 14),
        ("success", 2, 14),
        ("success", 1, 14),
    ]
    assert records[1].lost_s > 0


def test_a_connection_that_is_found_broken_between_episodes_costs_none(spec, start_server, evaluate):
    _, records = evaluate(start_server(Crashes(spec, seed=1, step=0, times=1)))
    assert [(one.outcome, one.attempts) for one in records] == [("success", 1)] * 3


def test_more_retries_count_when_a_run_is_gone_on_with(spec, start_server, evaluate):
    server = start_server(Crashes(spec, seed=1, step=3, times=4))
    assert [one.outcome for one in evaluate(server, retries=0)[1]] == ["success", "error", "success"]
    run, records = evaluate(server, retries=3)
    assert run.options.retries == 3
    assert [one.outcome for one in records] == ["success"] * 3


def test_after_the_retries_the_episode_is_an_error_and_the_next_one_runs(spec, start_server, evaluate):
    _, records = evaluate(start_server(Crashes(spec, seed=1, step=3, times=99)), retries=1)
    assert [one.outcome for one in records] == ["success", "error", "success"]
    assert records[1].attempts == 2
    assert records[1].error.startswith("unavailable: The connection to the policy server")


def test_a_rerun_repeats_the_errors_and_nothing_else(spec, start_server, evaluate):
    crashes = Crashes(spec, seed=1, step=3)
    server = start_server(crashes)
    evaluate(server, retries=0)
    server.requests.clear()
    _, records = evaluate(server, retries=0)
    assert seeds_of(server) == [1]
    assert [one.outcome for one in records] == ["success"] * 3


def test_an_overloaded_server_is_asked_again_and_costs_no_episode(spec, start_server, evaluate):
    answers = iter([{"code": "overloaded", "message": "The queue is full."}])

    def answer(request: InferRequest):
        error = next(answers, None)
        return {"id": request.id, "error": error} if error else chunk_of(spec, request, 0.25)

    _, records = evaluate(start_server(answer), episodes=1)
    assert (records[0].outcome, records[0].attempts) == ("success", 1)


def test_a_broken_simulator_voids_the_episode(spec, start_server, evaluate):
    made: list[FakeEnvironment] = []

    def make(settings):
        made.append(FakeEnvironment(settings))
        made[0].break_at = 4
        return made[0]

    _, records = evaluate(start_server(), make_environment=make, episodes=2)
    assert [(one.outcome, one.attempts) for one in records] == [("timeout", 2), ("timeout", 1)]
    assert records[0].lost_s > records[1].lost_s == 0
    assert made[0].resets == [0, 0, 1]
    assert made[0].closed


def test_a_server_that_is_gone_for_good_stops_the_run_with_an_error_record(spec, start_server, evaluate, tmp_path):
    servers: list[FakePolicyServer] = []

    def answer(request: InferRequest):
        if request.episode.seed < 1:
            return chunk_of(spec, request, 0.25)
        threading.Thread(target=servers[0].stop).start()
        return None

    servers.append(start_server(answer))
    with pytest.raises(ServerUnavailable, match=r"No policy server answers .*tried for 0.5 s"):
        evaluate(servers[0], connect_timeout=0.5)
    _, records = read_results(tmp_path / "out")
    assert [one.outcome for one in records] == ["success", "error"]
    assert "1 of 3 episodes are still to run" in (tmp_path / "out" / "report.md").read_text()


def test_a_server_that_comes_back_with_another_policy_stops_the_run(spec, start_server, evaluate):
    other = replace(spec, policy=replace(spec.policy, denoising_steps=3))
    servers: list[FakePolicyServer] = []

    def restart(request: InferRequest):
        threading.Thread(target=_replace, args=(servers, other)).start()

    servers.append(start_server(restart))
    with pytest.raises(SpecMismatch, match=f"now serves another policy .*instead of {spec.hash}"):
        evaluate(servers[0])
    servers[1].stop()


def _replace(servers: list[FakePolicyServer], spec) -> None:
    servers[0].stop()
    servers.append(FakePolicyServer(spec, port=servers[0].port))


def test_a_policy_that_answers_nan_stops_the_run_and_keeps_what_is_finished(spec, start_server, evaluate, tmp_path):
    server = start_server(lambda request: chunk_of(spec, request, np.nan if request.episode.seed else 0.25))
    with pytest.raises(ProtocolViolation, match="every action must be finite"):
        evaluate(server)
    assert [one.outcome for one in read_results(tmp_path / "out")[1]] == ["success"]


def test_killed_in_episode_7_and_run_again_every_episode_counts_once(
    spec, start_server, start_client, sim_client, tmp_path
):
    reached, go_on = threading.Event(), threading.Event()

    def answer(request: InferRequest):
        if (request.episode.seed, request.episode.step) == (6, 3) and not go_on.is_set():
            reached.set()
            go_on.wait(60)
            return None
        return chunk_of(spec, request, 0.25 * (request.episode.seed % 2))

    server = start_server(answer)
    command = ("--env", "PushCube-v1", "--episodes", 20, "--server", server.url, "--out", "out")
    process = start_client(*command)
    assert reached.wait(60), process.communicate(timeout=5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    go_on.set()
    assert [one.seed for one in read_results(tmp_path / "out")[1]] == [0, 1, 2, 3, 4, 5]
    server.requests.clear()

    code, output, errors = sim_client(*command)
    assert code == 0, errors
    assert "6 of 20 episodes are finished already; resuming." in errors
    assert seeds_of(server) == list(range(6, 20))
    written = [json.loads(line)["seed"] for line in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()]
    assert Counter(written) == Counter(range(20))
    assert output.startswith("PushCube-v1: success_once 10/20 = 50% [30%, 70%]")


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(spec, start_server, start_client, sim_client, tmp_path):
    reached, go_on = threading.Event(), threading.Event()

    def answer(request: InferRequest):
        if request.episode.seed == 2 and not go_on.is_set():
            reached.set()
            go_on.wait(60)
            return None
        return chunk_of(spec, request, 0.25)

    server = start_server(answer)
    command = ("--env", "PushCube-v1", "--episodes", 4, "--server", server.url, "--out", "out")
    process = start_client(*command)
    assert reached.wait(60), process.communicate(timeout=5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    go_on.set()
    assert process.returncode == 130
    assert "Stopped. 2 of 4 episodes are finished and kept in out. Run the same command again" in errors
    assert "Traceback" not in errors
    assert sim_client(*command)[0] == 0
    assert len(read_results(tmp_path / "out")[1]) == 4


def test_a_report_that_is_being_written_is_finished_whoever_stops_it(spec, start_server, evaluate, monkeypatch):
    def stopped(path):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        write_report(path)

    monkeypatch.setattr("sim_client.evaluation.run.write_report", stopped)
    before = signal.getsignal(signal.SIGINT)
    run, records = evaluate(start_server())
    assert len(records) == len(run.seeds)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_waiting_for_the_server_ends_with_130_too(start_client):
    process = start_client("--env", "PushCube-v1", "--server", "127.0.0.1:9", "--connect-timeout", 60)
    assert "Waiting up to 60 s" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "sim-client: Stopped while setting up. Run the same command again.\n")


def test_two_short_episodes_in_maniskill(spec, start_server, sim_client, tmp_path):
    server = start_server()
    code, output, errors = sim_client(
        *("--env", "PushCube-v1", "--episodes", 2, "--server", server.url, "--out", "out"),
        *("--max-episode-steps", 12, "--json"),
        fake=False,
    )
    assert code == 0, errors
    result = json.loads(output)
    assert result["outcomes"] == {"success": 0, "failure": 0, "timeout": 2, "error": 0}
    assert result["success_once"]["text"] == "0/2 = 0% [0%, 66%]"
    run, records = read_results(tmp_path / "out")
    assert (run.settings.robot_uids, run.settings.camera_height) == ("panda_wristcam", 64)
    for record in records:
        assert (record.steps, record.chunks) == (12, 4)
        assert record.provenance.overrides == {"--max-episode-steps": "12"}
        assert record.wall.render_s > 0
        assert set(record.cameras) == {"observation/image", "observation/wrist_image"}
    image = server.requests[0].observation["observation/image"]
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    assert image.std() > 1
    first, second = (one.observation["observation/state"] for one in (server.requests[0], server.requests[4]))
    assert first.shape == (8,)
    assert not np.array_equal(first, second)
