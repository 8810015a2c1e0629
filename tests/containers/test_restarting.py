"""`docker/restarting`: a command that was killed is started again, one that ended is not."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker/restarting"


def restarting(command: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", SCRIPT, "sh", "-c", command], capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize("code", [0, 1, 3, 128])
def test_the_commands_own_code_is_passed_on_at_once(code):
    ended = restarting(f"echo begun; exit {code}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "begun\n", "")


def test_a_killed_command_is_started_again_three_times_at_most():
    ended = restarting("echo begun; kill -9 $$")
    assert ended.returncode == 137
    assert ended.stdout == "begun\n" * 4
    told = [line for line in ended.stderr.splitlines() if line != "Killed"]  # the shell's own word for it
    assert told == [f"sh was killed (code 137) and is started again; up to {again} times." for again in (3, 2, 1)]


def test_one_that_was_killed_once_gives_the_code_of_its_next_life(tmp_path):
    ended = restarting("[ -e once ] && exit 5; touch once; kill -9 $$", cwd=tmp_path)
    assert ended.returncode == 5


def test_sigterm_goes_to_the_command_and_its_code_is_passed_on(tmp_path):
    command = "trap 'sleep 0.3; echo drained; exit 0' TERM; touch ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(["sh", SCRIPT, "sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "drained\n")
