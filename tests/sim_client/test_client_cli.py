"""Every message that `sim-client` ends with, and its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from fake_policy_server import chunk_of

from sim_client.tasks import TASKS


def test_help_lists_the_commands_without_loading_a_simulator():
    code = (
        "import sys; from sim_client.commands.app import app; import sim_client\n"
        "heavy = {'torch', 'mani_skill', 'sapien', 'gymnasium', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "app(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("--env", "--suite", "--allow-mismatch", "collect", "report", "sweep", "tasks"):
        assert word in done.stdout


def test_a_whole_run_prints_its_result_and_where_the_report_is(spec, start_server, sim_client, tmp_path):
    server = start_server(lambda request: chunk_of(spec, request, 0.25))
    code, output, errors = sim_client("--env", "PushCube-v1", "--episodes", 2, "--server", server.url)
    assert code == 0, errors
    assert output.splitlines() == [
        "PushCube-v1: success_once 2/2 = 100% [34%, 100%], "
        "success_at_end (10 steps after success) 2/2 = 100% [34%, 100%]",
        "Report: results/PushCube-v1/tiny-test-9-seed0/report.html",
    ]
    assert "episode 2/2  seed 1  success (first at step 4)  14 steps" in errors
    assert "episodes/min" in errors
    written = sorted(path.name for path in (tmp_path / "results/PushCube-v1/tiny-test-9-seed0").iterdir())
    assert written == [".lock", "episodes.jsonl", "report.html", "report.md", "run.json"]


def test_a_finished_run_is_reported_again_and_not_repeated(spec, start_server, sim_client):
    server = start_server(lambda request: chunk_of(spec, request, 0.25))
    command = ("--env", "PushCube-v1", "--episodes", 1, "--server", server.url, "--out", "out")
    first = sim_client(*command)
    server.requests.clear()
    assert sim_client(*command)[:2] == first[:2]
    assert server.requests == []
    assert sim_client("report", "out")[:2] == first[:2]


def test_another_run_in_the_directory_is_refused_and_can_overwrite(spec, start_server, sim_client):
    server = start_server()
    command = ("--env", "PushCube-v1", "--episodes", 1, "--server", server.url, "--out", "out")
    assert sim_client(*command)[0] == 0
    code, _, errors = sim_client(*command, "--run-seed", 4)
    assert code == 1
    assert "sim-client: out holds the results of another run:\n  option run_seed: 0, now 4\n" in errors
    assert sim_client(*command, "--run-seed", 4, "--overwrite")[0] == 0


def test_episodes_that_stay_errors_end_with_exit_code_1(start_server, sim_client):
    server = start_server(lambda request: None)
    code, output, errors = sim_client(
        *("--env", "PushCube-v1", "--episodes", 1, "--server", server.url, "--retries", 0, "--out", "out")
    )
    assert code == 1
    assert "1 ended in an error (counted as failures: 0/1" in output
    assert "1 of 1 episodes ended in an infrastructure error (see out/report.md). Run the same command" in errors


def test_a_mismatch_is_refused_before_anything_is_written(start_server, sim_client, tmp_path):
    code, _, errors = sim_client(
        *("--env", "PushCube-v1", "--server", start_server().url, "--control-freq", 10, "--out", "out")
    )
    assert code == 1
    assert "  simulation.control_freq: the policy has 20, the simulator 10. Leave --control-freq out" in errors
    assert "pass --allow-mismatch simulation.control_freq." in errors
    assert not (tmp_path / "out").exists()


def test_an_allowed_mismatch_stands_in_the_results(start_server, sim_client, tmp_path):
    code, _, errors = sim_client(
        *("--env", "PushCube-v1", "--episodes", 1, "--server", start_server().url, "--out", "out"),
        *("--control-freq", 10, "--allow-mismatch", "simulation.control_freq"),
    )
    assert code == 0, errors
    assert "Note: simulation.control_freq: the policy has 20, the simulator 10." in errors
    assert '"allowed_mismatches":["simulation.control_freq"]' in (tmp_path / "out/episodes.jsonl").read_text()
    assert "**Mismatch allowed**: simulation.control_freq" in (tmp_path / "out/report.md").read_text()


def test_a_camera_that_the_simulator_lacks_stops_before_the_first_episode(spec, start_server, sim_client):
    cameras = (replace(spec.observation.cameras[0], simulator_camera="ceiling"), spec.observation.cameras[1])
    server = start_server(of=replace(spec, observation=replace(spec.observation, cameras=cameras)))
    code, _, errors = sim_client("--env", "PushCube-v1", "--server", server.url)
    assert code == 1
    assert "observation.cameras.ceiling: the policy has a camera 'ceiling' as 'observation/image'" in errors
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--env", "PushCube-v1", "--episodes", 0), "--episodes must be at least 1, not 0."),
        (
            ("--env", "PushCube-v1", "--camera-size", "big"),
            "--camera-size must be N or HEIGHTxWIDTH in pixels, not 'big'",
        ),
        (("--env", "PushCube-v1", "--server", "ftp://x"), "--server 'ftp://x' is not the address of a policy server"),
        (("--env", "PushCube-v1", "--api-key-file", "none"), "--api-key-file none cannot be read: No such file"),
        (("--env", "PushCube-v1", "--api-key-file", "/bin/ls"), "--api-key-file /bin/ls is no text file; its first"),
        (("--env", "PushCube-v1", "--server", "ws://a..b:8000"), "--server 'ws://a..b:8000' is not the address of a"),
        (("--env", "PushCube-v1", "--connect-timeout", -1), "--connect-timeout must be a number of seconds above 0"),
        (("--env", "PushCube-v1", "--reply-timeout", 0), "--reply-timeout must be a number of seconds above 0, not 0."),
        (
            ("--env", "PushCube-v1", "--render-backend", "foo"),
            "--render-backend must be one of cpu, gpu, none, not 'foo'.",
        ),
        (("--json", "report", "out"), "--json stands before the command 'report', where it has no effect."),
        (("collect", "--out", "a.h5", "--episodes", 0), "--episodes must be at least 1, not 0."),
        (("collect", "--out", "a.h5", "--workers", 0), "--workers must be at least 1, not 0."),
        (("collect", "--out", "a.h5", "--render-backend", "none"), "--render-backend must be one of cpu, gpu, not"),
        (("collect", "--out", "demos"), "--out must end in .h5, not 'demos'. Pass --out demos.h5."),
        ((), "Name the task to measure: sim-client --env StackCube-v1."),
        (("--suite", "maniskill6", "--env", "A-v1"), "--env and --suite both choose tasks. Pass one of them."),
        (("--env", "PushCube-v1", "tasks"), "--env stands before the command 'tasks', where it has no effect."),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_names_the_flag(sim_client, arguments, message):
    code, _, errors = sim_client(*arguments)
    assert code == 2
    assert errors.startswith(f"sim-client: {message}")
    assert "Traceback" not in errors


def test_ctrl_c_before_the_command_has_loaded_ends_with_130():
    """Python tells on standard error what it has imported; numpy is in the middle of what the command loads."""
    program = [sys.executable, "-X", "importtime", "-c", "from sim_client.cli import main; main()", "tasks"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("numpy.version" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("sim-client: Stopped.\n")
    assert "Traceback" not in errors


def test_without_a_server_the_exit_code_is_1_and_the_hint_is_there(sim_client):
    code, _, errors = sim_client("--env", "PushCube-v1", "--server", "127.0.0.1:9", "--connect-timeout", 0.3)
    assert code == 1
    assert "sim-client: No policy server answers at ws://127.0.0.1:9 (tried for 0.3 s; connection refused)." in errors
    assert "serve --checkpoint DIR" in errors


def test_an_unknown_environment_is_found_out_before_connecting(sim_client):
    code, _, errors = sim_client("--env", "StackCub-v1", "--server", "127.0.0.1:9", fake=False)
    assert code == 1
    assert "sim-client: Unknown environment 'StackCub-v1'. Did you mean 'StackCube-v1'?" in errors


def test_a_report_of_nothing_says_which_directory_to_name(sim_client):
    code, _, errors = sim_client("report", "nowhere")
    assert code == 1
    assert "sim-client: nowhere/run.json cannot be read: No such file or directory. Name a directory" in errors


def test_the_tasks_are_listed(sim_client):
    code, output, _ = sim_client("tasks")
    assert code == 0
    lines = {line.split()[0]: line.split("  ") for line in output.splitlines() if "_camera" in line and "-v1" in line}
    assert list(lines) == list(TASKS)
    cells = [cell.strip() for cell in lines["PickCube-v1"] if cell.strip()]
    assert cells == [
        "PickCube-v1",
        "base_camera, hand_camera",
        "~80 steps",
        "50 steps",
        "only in extra/goal_pos",
    ]
    assert "an evaluation takes its limit from the policy's spec" in output


def test_the_tasks_as_json_have_every_fact_of_the_table(sim_client):
    code, output, _ = sim_client("tasks", "--json")
    assert code == 0
    peg = json.loads(output)[-1]
    assert (peg["env_id"], peg["demonstration_steps"], peg["registered_limit"]) == ("PegInsertionSide-v1", 156, 100)
    assert (peg["cameras"], peg["goal_visible"]) == (["base_camera", "hand_camera"], True)
