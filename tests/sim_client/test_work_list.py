"""However many workers there are, whatever dies, whenever a run is interrupted: each episode is scored exactly once."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from fake_environment import FakeEnvironment
from fake_policy_server import chunk_of
from fated_crew import Fate
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_policy import identity, outcome_of
from rich.console import Console

from sim_client.episode.chunk_use import ChunkUse
from sim_client.episode.keepsakes import NOTHING
from sim_client.episode.rules import EpisodeRules
from sim_client.errors import Interrupted
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.progress import Progress
from sim_client.evaluation.session import EvaluationSession
from sim_client.evaluation.staff import Staff
from sim_client.evaluation.work_list import Assignment, WorkList
from sim_client.evaluation.workshop import EpisodeWorkshop
from sim_client.results.directory import ResultsDirectory
from sim_client.results.records import read_records
from sim_client.results.run_record import RunRecord
from sim_client.versions import installed_versions


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_any_interleaving_of_workers_deaths_and_interruptions_gives_the_same_episodes(seed):
    draw = Random(seed).randrange
    fate = Fate(draw, num_envs=1 + draw(3))
    with TemporaryDirectory() as folder:
        while True:
            try:
                play(Path(folder), fate)
                break
            except Interrupted:
                continue
        written = Counter(record.seed for record in read_records(Path(folder) / "episodes.jsonl"))
        assert written == Counter(range(6))
        assert identity(Path(folder)) == _SHARED["expected"]


_SHARED: dict = {}
"""Hypothesis runs a test many times within one fixture's life."""


def play(folder: Path, staff: Staff | Fate) -> None:
    """Finish the six episodes, or as many as fate allows."""
    run = _SHARED["run"]
    rules = EpisodeRules(run.spec, "PushCube-v1", run.prompt, ChunkUse(3), 10, run.provenance)
    dial = Dial(_SHARED["server"].url)
    workshop = EpisodeWorkshop(run.settings, rules, NOTHING, dial, run.options.retries, FakeEnvironment)
    with ResultsDirectory(folder, run) as directory:
        EvaluationSession(directory, workshop, staff, Progress(6, (), Console(file=io.StringIO()))).run()


@pytest.fixture(autouse=True)
def shared(describe_run: Callable[..., RunRecord], start_server, tmp_path: Path) -> None:
    server = start_server(lambda request: chunk_of(_SHARED["run"].spec, request, outcome_of(request)))
    run = replace(describe_run(episodes=6, retries=50), versions=installed_versions())
    _SHARED.update(run=run, server=server)
    play(tmp_path / "expected", Staff(workers=0))
    _SHARED.update(expected=identity(tmp_path / "expected"))
    outcomes = {outcome for _, outcome, _, _ in _SHARED["expected"]}
    assert outcomes == {"success", "timeout"}, "the dummy policy both succeeds and fails"


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_real_workers_killed_again_and_again_and_a_killed_run_give_the_same_episodes(
    workers, start_client, sim_client, tmp_path
):
    command = ("--env", "PushCube-v1", "--episodes", 6, "--server", _SHARED["server"].url, "--out", "out")
    command += ("--workers", workers, "--retries", 20)
    process = start_client(*command)
    assassin = threading.Thread(target=kill_workers, args=(process.pid, 3))
    assassin.start()
    deadline = time.monotonic() + 120
    while not read_records(tmp_path / "out" / "episodes.jsonl") and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assassin.join()
    code, _, errors = sim_client(*command)
    assert code == 0, errors
    assert identity(tmp_path / "out") == _SHARED["expected"]
    written = Counter(record.seed for record in read_records(tmp_path / "out" / "episodes.jsonl"))
    assert written == Counter(range(6))


def kill_workers(parent: int, times: int) -> None:
    """SIGKILL one worker process after the other, as soon as there is one."""
    deadline = time.monotonic() + 60
    killed: set[int] = set()
    while len(killed) < times and time.monotonic() < deadline:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return
        for child in set(map(int, children)) - killed:
            try:
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, signal.SIGKILL)
                    killed.add(child)
            except (FileNotFoundError, ProcessLookupError):
                continue
        time.sleep(0.3)


def test_episodes_are_leased_in_the_order_of_the_list_as_many_at_once_as_a_worker_runs():
    work = WorkList([(0, 7), (1, 8), (2, 9)], at_once=2)
    assert work.take() == (Assignment(0, 7), Assignment(1, 8))
    assert work.take() == (Assignment(2, 9),)
    assert work.take() is None


def test_a_dead_workers_episodes_come_first_and_alone():
    work = WorkList([(0, 7), (1, 8), (2, 9)], at_once=2, retries=1)
    lease = work.take()
    assert lease is not None
    assert work.lost(lease, seconds=5.0) == ()
    assert work.take() == (Assignment(0, 7, begun=1, lost_s=2.5),)
    assert work.take() == (Assignment(1, 8, begun=1, lost_s=2.5),)
    assert work.take() == (Assignment(2, 9),)


def test_an_episode_that_too_many_workers_died_at_is_given_back():
    work = WorkList([(0, 7)], retries=1)
    first = work.take()
    assert first is not None
    work.lost(first, 1.0)
    second = work.take()
    assert second is not None
    assert work.lost(second, 1.0) == (Assignment(0, 7, begun=2, lost_s=2.0),)
    assert len(work) == 0
