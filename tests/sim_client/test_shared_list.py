"""Several processes on one list of episodes: each is counted once, whoever comes, dies or leaves on the way."""

from __future__ import annotations

import io
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from fake_environment import FakeEnvironment
from fake_policy_server import FakePolicyServer, chunk_of
from fated_crew import Fate
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_policy import identity, outcome_of
from rich.console import Console

from sim_client.episode.chunk_use import ChunkUse
from sim_client.episode.keepsakes import NOTHING
from sim_client.episode.rules import EpisodeRules
from sim_client.errors import Interrupted
from sim_client.evaluation import shared_list
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.progress import Progress
from sim_client.evaluation.session import EvaluationSession
from sim_client.evaluation.staff import Staff
from sim_client.evaluation.workshop import EpisodeWorkshop
from sim_client.results.directory import ResultsDirectory, read_results
from sim_client.results.records import read_records
from sim_client.results.run_record import RunRecord
from sim_client.results.shared import SharedDirectory
from sim_client.versions import installed_versions

EPISODES = 6
_SHARED: dict = {}
"""Hypothesis runs a test many times within one fixture's life."""


def work(directory: ResultsDirectory, staff: Staff | Fate) -> str:
    """Finish the list, or as much as fate allows; what was said."""
    run, said = directory.run, io.StringIO()
    rules = EpisodeRules(run.spec, "PushCube-v1", run.prompt, ChunkUse(3), 10, run.provenance)
    dial = Dial(_SHARED["server"].url)
    workshop = EpisodeWorkshop(run.settings, rules, NOTHING, dial, run.options.retries, FakeEnvironment)
    with directory:
        progress = Progress(len(run.seeds), directory.records(), Console(file=said))
        EvaluationSession(directory, workshop, staff, progress).run()
    return said.getvalue()


def share(folder: Path, run: RunRecord, staffs: list[Staff | Fate]) -> None:
    """Work on the list in as many threads as there are staffs; one that is interrupted comes again."""
    errors: list[BaseException] = []

    def member(staff: Staff | Fate) -> None:
        try:
            while True:
                try:
                    work(SharedDirectory(folder, run), staff)
                    return
                except Interrupted:
                    continue
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=member, args=(staff,), daemon=True) for staff in staffs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert errors == []


def written(folder: Path) -> Counter:
    return Counter(record.seed for record in read_records(folder / "episodes.jsonl"))


@pytest.fixture(autouse=True)
def shared(describe_run: Callable[..., RunRecord], start_server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shared_list, "_LOOK_S", 0.02)
    server = start_server(lambda request: chunk_of(_SHARED["run"].spec, request, outcome_of(request)))
    run = replace(describe_run(episodes=EPISODES, retries=50), versions=installed_versions())
    _SHARED.update(run=run, server=server)
    work(ResultsDirectory(tmp_path / "expected", run), Staff(workers=0))
    _SHARED.update(expected=identity(tmp_path / "expected"))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_any_members_whose_workers_die_and_who_are_stopped_and_come_again_give_the_same_episodes(seed):
    draw = Random(seed).randrange
    staffs = [Fate(Random(draw(2**32)).randrange, num_envs=1 + draw(3)) for _ in range(2 + draw(2))]
    with TemporaryDirectory() as folder:
        share(Path(folder), _SHARED["run"], staffs)
        assert written(Path(folder)) == Counter(range(EPISODES))
        assert identity(Path(folder)) == _SHARED["expected"]


def test_members_that_stop_when_sure_stop_after_the_same_episodes_as_one_process(describe_run, tmp_path):
    run = replace(describe_run(episodes=60, stop_when_sure=0.6), versions=installed_versions())
    work(ResultsDirectory(tmp_path / "alone", run), Staff(workers=0))
    share(tmp_path / "together", run, [Staff(workers=0)] * 3)
    alone, together = (read_results(tmp_path / name) for name in ("alone", "together"))
    assert 0 < len(alone[1]) < 60
    assert together[0].stopped_after == alone[0].stopped_after == len(alone[1])
    assert together[0].sure_interval == alone[0].sure_interval
    assert identity(tmp_path / "together") == identity(tmp_path / "alone")


class StoppedAtTheEnd(Staff):
    """The user stops the process while it ends its crew."""

    def hire(self, *arguments):
        crew = super().hire(*arguments)
        end = crew.stop

        def stop() -> None:
            end()
            raise KeyboardInterrupt

        crew.stop = stop
        return crew


def test_a_member_that_is_stopped_when_the_list_is_finished_is_done(tmp_path):
    said = work(SharedDirectory(tmp_path / "together", _SHARED["run"]), StoppedAtTheEnd(workers=0))
    assert "Stopped" not in said
    assert identity(tmp_path / "together") == _SHARED["expected"]


class Gate:
    """A policy that lets one episode hang until `open`."""

    def __init__(self, spec, seed: int) -> None:
        self._spec, self._seed = spec, seed
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, request):
        if request.episode.seed == self._seed and not self.go_on.is_set():
            self.reached.set()
            self.go_on.wait(60)
            return None
        return chunk_of(self._spec, request, outcome_of(request))


@pytest.fixture
def gate(spec) -> Iterator[Gate]:
    gate = Gate(spec, seed=2)
    yield gate
    gate.go_on.set()


def seeds_of(server: FakePolicyServer) -> Counter:
    """How often each episode was begun."""
    return Counter(request.episode.seed for request in server.requests if request.episode.step == 0)


def read_until(stream, sentence: str) -> str:
    """Lines up to the one that has `sentence` in it."""
    lines = ""
    for line in stream:
        lines += line
        if sentence in line:
            return lines
    raise AssertionError(lines)


@pytest.mark.timeout(300)
def test_what_a_killed_process_was_at_is_run_by_those_that_joined(gate, start_server, start_client, command, tmp_path):
    server = start_server(gate)
    arguments = ("--env", "PushCube-v1", "--episodes", EPISODES, "--server", server.url, "--out", "out", "--share")
    first = start_client(*arguments, "--workers", 2)
    assert gate.reached.wait(120), first.communicate(timeout=5)
    late = [start_client(*arguments, "--workers", workers) for workers in (0, 1)]
    for process in late:
        read_until(process.stderr, "Waiting for other processes, which are at the seeds 2.")
    assert written(tmp_path / "out") == Counter(set(range(EPISODES)) - {2})
    first.send_signal(signal.SIGKILL)
    gate.go_on.set()
    outputs = [process.communicate(timeout=120) for process in late]
    assert [process.returncode for process in late] == [0, 0], outputs
    assert written(tmp_path / "out") == Counter(range(EPISODES))
    assert identity(tmp_path / "out") == _SHARED["expected"]
    assert len({output for output, _ in outputs}) == 1
    assert {seed for seed, times in seeds_of(server).items() if times > 1} == {2}

    server.requests.clear()
    again = command(*arguments)
    assert (again.output, again.error) == (outputs[0][0], None)
    assert server.requests == []
    assert [path.name for path in (tmp_path / "out" / "members").iterdir()] == [".lock"]


@pytest.mark.timeout(300)
def test_a_process_that_is_told_to_end_frees_its_episode_at_once(gate, start_server, start_client, tmp_path):
    server = start_server(gate)
    arguments = ("--env", "PushCube-v1", "--episodes", EPISODES, "--server", server.url, "--out", "out", "--share")
    leaving = start_client(*arguments, "--workers", 0)
    assert gate.reached.wait(120), leaving.communicate(timeout=5)
    staying = start_client(*arguments, "--workers", 0)
    read_until(staying.stderr, "Waiting for other processes, which are at the seeds 2.")
    leaving.send_signal(signal.SIGTERM)
    _, errors = leaving.communicate(timeout=60)
    assert leaving.returncode == 130
    assert errors.splitlines()[-1] == (
        f"sim-client: Stopped. 5 of {EPISODES} episodes are finished and kept in out. Another process goes on with "
        "the rest. Run the same command again to join."
    )
    gate.go_on.set()
    assert staying.wait(timeout=120) == 0
    assert identity(tmp_path / "out") == _SHARED["expected"]
