"""Several real processes that train together over loopback: what they compute, how they stop, how they fail."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from training.experiment import override
from training.experiments import find_experiment
from training.inputs import open_inputs
from training.loop import train
from training.parallel.membership import Membership, MembershipInvalid
from training.pi05.checkpoint.weights import read_params

NAME = "pi05_maniskill_stackcube_small"
PROGRAM = Path(__file__).with_name("train_cut.py")
NUMBERS = ("loss", "grad_norm", "param_norm")
ROUNDING = 1e-5
"""The processes sum each gradient in another order than one does; measured: 3e-7 after six steps."""

pytestmark = [pytest.mark.usefixtures("own_caches"), pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    err: str

    @property
    def last(self) -> str:
        return self.err.splitlines()[-1]


@pytest.fixture(scope="module")
def experiment(lerobot_dataset, tiny_settings):
    return override(
        find_experiment(NAME), [*tiny_settings, f"dataset={lerobot_dataset}", "held_out=0.3", "validate_every=3"]
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def start(experiment, runs, tiny_settings):
    """Starts `train` as one process; gives the process, with what it says on a pipe."""
    settings = [part for setting in tiny_settings for part in ("--set", setting)]
    common = ("--runs", str(runs), "--dataset", experiment.dataset, *settings)
    more = ("--set", "held_out=0.3", "--set", "validate_every=3")

    def begin(*arguments):
        command = (sys.executable, str(PROGRAM), NAME, *common, *more, *arguments)
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    return begin


@pytest.fixture(scope="module")
def port():
    """Ports for process 0 of each run. Bound here, each is kept from others; gRPC shares it, and this never listens."""
    held = []

    def take():
        held.append(socket.socket())
        held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held[-1].bind(("127.0.0.1", 0))
        return held[-1].getsockname()[1]

    yield take
    for one in held:
        one.close()


@pytest.fixture(scope="module")
def pair(start, port):
    """Starts two processes that find each other; the arguments of each may end with some of its own."""

    def begin(run, *arguments, own=((), ())):
        place = ("--coordinator", f"127.0.0.1:{port()}", "--num-processes", "2")
        together = ("--exp-name", run, *place, *arguments)
        return [start(*together, "--process-id", str(index), *own[index]) for index in (0, 1)]

    return begin


def ended(processes):
    """How they end; none is left behind."""
    try:
        return [Ended(process.wait(timeout=300), err) for process, err in zip(processes, _said(processes), strict=True)]
    finally:
        for process in processes:
            process.kill()


def _said(processes):
    return [process.communicate(timeout=300)[1] for process in processes]


def lines(run, file="metrics.jsonl"):
    return [json.loads(line) for line in (run / file).read_text().splitlines()]


def assert_computed(run, whole):
    """A run's numbers are those of an uninterrupted one in a single process."""
    for file, names in (("metrics.jsonl", NUMBERS), ("validation.jsonl", ("loss", "action_error/action_0"))):
        mine, theirs = (
            [[line[name] for name in ("step", *names)] for line in lines(one, file)] for one in (run, whole)
        )
        np.testing.assert_allclose(mine, theirs, rtol=ROUNDING)


def signalled(processes, number):
    """How two processes end when the second gets a signal after the third step."""
    first, second = processes
    said = []
    try:
        for line in first.stderr:
            said.append(line)
            if line.startswith("step 3/"):
                second.send_signal(number)
                break
        told, other = ended(processes)
    finally:
        first.kill(), second.kill()
    return Ended(told.code, "".join(said) + told.err), other


@pytest.fixture(scope="module")
def stopped(pair):
    return signalled(pair("pair", "--set", "steps=100000"), signal.SIGTERM)


@pytest.fixture(scope="module")
def reached(stopped, runs):
    """The newest step directory of the stopped run."""
    return runs / NAME / "pair" / str(lines(runs / NAME / "pair")[-1]["step"])


def test_sigterm_to_one_process_stops_all_after_the_same_step_which_is_saved(stopped, reached):
    message = f"train: stopped; {reached} is saved. Go on with --resume."
    assert [(process.code, process.last) for process in stopped] == [(143, message)] * 2
    assert int(reached.name) < 20


def test_one_process_of_all_writes_and_shows(stopped, reached):
    first, second = stopped
    assert "step 1/100000  loss " in first.err
    assert "step 1/" not in second.err
    assert [line["step"] for line in lines(reached.parent)] == list(range(int(reached.name) + 1))
    assert len(list((reached.parent / "tensorboard").iterdir())) == 1


def test_the_memory_that_is_logged_is_that_of_the_process_with_most(stopped, reached):
    """`train_cut.py` makes process 1 out to have taken 1,000 TB."""
    assert min(line["memory_gb"] for line in lines(reached.parent)) > 900_000


def test_processes_compute_what_one_does_also_when_they_go_on(pair, stopped, reached, experiment, runs):
    run, steps = reached.parent, int(reached.name) + 3
    whole = train(override(experiment, [f"steps={steps}"]), "whole", runs)
    together = ended(pair("pair", "--set", f"steps={steps}", "--resume"))
    assert [process.code for process in together] == [0, 0], together
    assert_computed(run, whole.parent)
    expected = read_params(whole)
    for path, leaf in read_params(run / whole.name).items():
        # AdamW divides by a gradient's size: what is rounding in a small one may be a tenth of an update (1e-3).
        np.testing.assert_allclose(leaf, expected[path], atol=1e-4)


def test_a_killed_process_ends_the_other_which_says_that_one_is_gone(pair):
    """Between CPUs the network tells at once; where it does not, the heartbeat takes a minute."""
    first, second = signalled(pair("killed", "--set", "steps=100000"), signal.SIGKILL)
    assert (first.code, second.code) == (1, -signal.SIGKILL)
    assert "train: The processes could not compute together (" in first.err
    assert first.err.rstrip().endswith(
        "Most often another one has died: its output says why. Start all of them again with --resume."
    )


def test_the_rows_of_two_processes_are_those_of_one(experiment):
    whole, first, second = (
        open_inputs(experiment, "read", None, rows=rows) for rows in (slice(0, 2), slice(0, 1), slice(1, 2))
    )
    for step in (0, 7):
        both = [inputs.samples(step).actions for inputs in (first, second)]
        np.testing.assert_array_equal(np.concatenate(both), whole.samples(step).actions)


def test_an_error_of_one_process_ends_the_others_with_its_words(pair):
    first, second = ended(pair("failing", own=((), ("--dataset", "datasets/none"))))
    assert (first.code, second.code) == (1, 1)
    assert "datasets/none" in second.last
    assert first.last == second.last.replace("train: ", "train: process 1 failed, so this one ends too: ")


def test_a_process_that_runs_out_of_something_says_of_what(port):
    program = str(PROGRAM.with_name("failing.py"))
    commands = [[sys.executable, program, str(port()), lacking] for lacking in ("room", "memory")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    room, memory = ended(
        [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    )
    assert (room.code, memory.code) == (1, 1)
    assert room.last.startswith("train: metrics.jsonl could not be written (No space left on device). Make room on ")
    assert memory.last.startswith("train: A device has too little memory (Out of memory allocating 1125899906842624 ")
    assert "Traceback" not in room.err + memory.err


def test_processes_that_were_started_otherwise_say_what_differs(pair):
    first, second = ended(pair("unlike", own=((), ("--set", "batch_size=4"))))
    message = (
        "Process 1 was started otherwise than process 0: batch_size is 4 here and 2 there. "
        "Start all processes of a run with the same settings."
    )
    assert (second.code, second.last) == (1, f"train: {message}")
    assert (first.code, first.last) == (1, f"train: process 1 failed, so this one ends too: {message}")


def test_a_process_whose_coordinator_does_not_answer_says_so_in_the_time_given(start):
    place = ("--coordinator", "127.0.0.1:9", "--num-processes", "2", "--process-id", "1", "--join-timeout", "1")
    (process,) = ended([start("--exp-name", "lonely", *place)])
    assert process.code == 1
    assert process.last == (
        "train: 2 processes did not come together at 127.0.0.1:9 within 1 s. Start every one with the address of "
        "process 0, the same --num-processes and its own --process-id, see that its machine can be reached there, or "
        "give them longer (--join-timeout)."
    )


def test_a_process_that_finds_no_cluster_names_the_flags_that_need_none(start):
    (process,) = ended([start("--exp-name", "lonely", "--distributed")])
    assert process.code == 1
    assert process.last == (
        "train: --distributed found no cluster that jax knows (coordinator_address should be defined). "
        "Pass --coordinator HOST:PORT, --num-processes and --process-id instead."
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"coordinator": "a:1", "index": 0},
            "Several processes need --coordinator, --num-processes and --process-id each; missing: --num-processes.",
        ),
        (
            {"count": 2, "detect": True},
            "--distributed asks the cluster for --coordinator, --num-processes and --process-id: pass it alone, or "
            "those three.",
        ),
        (
            {"coordinator": "localhost", "count": 2, "index": 0},
            "--coordinator takes HOST:PORT, a free port of the machine of process 0, not 'localhost'.",
        ),
        (
            {"coordinator": "a:1", "count": 2, "index": 2},
            "--process-id is 2 and --num-processes is 2: processes are numbered from 0 to their number less one.",
        ),
    ],
)
def test_flags_that_do_not_say_which_process_this_is_are_refused(flags, message):
    with pytest.raises(MembershipInvalid) as error:
        Membership(**flags)
    assert error.value.message == message
