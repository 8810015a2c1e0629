"""A run that is killed, finds the disk full and is told to stop, each in the middle of a save, computes what an
uninterrupted one does: with averaging, frozen leaves and accumulation."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.experiment import override
from training.experiments import find_experiment
from training.loop import train

NAME = "pi05_maniskill_stackcube_small"
STEPS = 7

pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture(scope="module")
def settings(tiny_settings):
    frozen = 'freeze=["PaliGemma/llm/*", "!*_1/*"]'
    return [*tiny_settings, frozen, "accumulate_steps=2", f"steps={STEPS}", "save_every=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def uninterrupted(settings, runs, lerobot_dataset):
    """The folder of a run that goes through, saved at its end alone."""
    changed = [*settings, f"dataset={lerobot_dataset}", f"save_every={STEPS}"]
    experiment = override(find_experiment(NAME), changed)
    assert (experiment.optimizer.ema_decay, experiment.accumulate_steps) == (0.99, 2)
    return train(experiment, "uninterrupted", runs).parent


@pytest.fixture(scope="module")
def run(settings, runs, lerobot_dataset):
    """Begins, or goes on with, the interrupted run as a process of its own, with a mishap or none."""
    told = [part for setting in settings for part in ("--set", setting)]
    arguments = [NAME, "--exp-name", "interrupted", "--runs", str(runs), "--dataset", str(lerobot_dataset), *told]
    program = str(Path(__file__).with_name("train_until.py"))

    def process(*flags, mishap):
        command = [sys.executable, program, *mishap, *arguments, *flags]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    return process


@pytest.fixture(scope="module")
def folder(runs):
    return runs / NAME / "interrupted"


@pytest.fixture(scope="module")
def killed(run, uninterrupted, folder):
    """By SIGKILL, when all of step 1 is written but its name; what was on disk then."""
    result = run(mishap=("kill", "os.rename", r"/1\.orbax-checkpoint-tmp$"))
    return result, sorted(child.name for child in folder.iterdir() if child.is_dir())


@pytest.fixture(scope="module")
def filled(run, killed):
    """Goes on, and finds no room to save step 2."""
    return run("--resume", mishap=("fill", "os.mkdir", r"/2\.orbax-checkpoint-tmp$"))


@pytest.fixture(scope="module")
def stopped(run, filled):
    """Goes on, and gets SIGTERM while it saves step 2."""
    return run("--resume", mishap=("stop", "os.rename", r"/2\.orbax-checkpoint-tmp$"))


@pytest.fixture(scope="module")
def finished(run, stopped):
    """Goes on to the end; SIGTERM while the last step is saved comes too late to stop anything."""
    return run("--resume", mishap=("stop", "os.rename", rf"/{STEPS - 1}\.orbax-checkpoint-tmp$"))


def computed(folder):
    """What a run computed, without the times that it took."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"], line["grad_norm"], line["param_norm"]) for line in lines]


def test_a_killed_run_keeps_the_step_before_and_an_unfinished_one(killed):
    result, on_disk = killed
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert on_disk == ["0", "1.orbax-checkpoint-tmp", "tensorboard"]


def test_a_full_disk_ends_a_run_with_one_line_that_says_what_is_left_and_what_to_do(filled, folder):
    assert filled.returncode == 1, filled.stderr
    assert filled.stderr.splitlines()[-1] == (
        f"train: A step could not be saved in {folder} (File too large). Step 1 is whole. "
        "Make room on the disk, then go on with --resume."
    )
    assert "Traceback" not in filled.stderr


def test_sigterm_in_the_middle_of_a_save_ends_it_and_saves_the_state_reached(stopped, folder):
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    message = stopped.stderr.splitlines()[-1]
    assert message in {f"train: stopped; {folder / str(step)} is saved. Go on with --resume." for step in (3, 4)}


def test_after_all_of_that_a_run_has_computed_what_an_uninterrupted_one_has(finished, uninterrupted, folder):
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == f"Trained. Serve it: serve --checkpoint {folder / str(STEPS - 1)}"
    assert computed(folder) == computed(uninterrupted)
    assert [step for step, *_ in computed(folder)] == list(range(STEPS))


def test_nothing_unfinished_is_left_behind(finished, folder):
    last = [str(step) for step in range(STEPS - 3, STEPS)]
    assert sorted(child.name for child in folder.iterdir() if child.is_dir()) == [*last, "tensorboard"]
