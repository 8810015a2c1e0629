"""However a run ends, nothing of it stays on the engine; and what a killed one left is found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException
from fake_engine import FakeContainer, FakeNetwork, refused
from requests.exceptions import ConnectionError as EngineGone

from eval_stack import running
from eval_stack.engine import connected
from eval_stack.errors import EngineUnavailable
from eval_stack.owner import Owner

HERE = Path(__file__).parent


def nothing_is_left(engine) -> bool:
    return engine.containers.all == [] and engine.networks.all == []


def ctrl_c(container):
    raise KeyboardInterrupt


def test_ctrl_c_while_clients_run_lets_them_write_their_report(eval_stack, engine, first, tmp_path):
    engine.lives["sim"] = [["running", ctrl_c, "running"]]
    ended = eval_stack(*first, "--sims", 2)
    assert ended.code == 130
    assert ended.err.endswith(
        f"eval-stack: Stopped. Finished episodes are kept in {tmp_path}/out. Run the same command again to go on.\n"
    )
    stopping = engine.history[engine.history.index("SIGINT sim") :]
    assert stopping == ["SIGINT sim", "SIGINT sim", "SIGTERM server", "remove server", "remove sim", "remove sim"]
    assert (tmp_path / "out/first/StackCube-v1/episodes.jsonl").exists()
    assert nothing_is_left(engine)


def test_ctrl_c_while_the_server_compiles_stops_it(eval_stack, engine, first):
    engine.lives["server"] = [["starting", ctrl_c, "starting"]]
    assert eval_stack(*first).code == 130
    assert engine.history == ["start server", "SIGTERM server", "remove server"]
    assert nothing_is_left(engine)


def test_a_second_ctrl_c_kills_what_does_not_stop(eval_stack, engine, first):
    engine.lives["sim"] = [["running", ctrl_c, *["running"] * 5, ctrl_c, "running"]]
    engine.stubborn = {"sim"}
    ended = eval_stack(*first)
    assert ended.code == 130
    assert "Stopped once more: what still runs is killed.\n" in ended.err
    assert nothing_is_left(engine)


def test_a_client_that_does_not_stop_is_removed_after_its_time(eval_stack, engine, first, monkeypatch):
    monkeypatch.setitem(running._GRACE_S, "sim", 0.01)
    engine.lives["sim"] = [["running", ctrl_c, "running"]]
    engine.stubborn = {"sim"}
    assert eval_stack(*first).code == 130
    assert nothing_is_left(engine)


def test_a_client_that_ends_by_itself_while_it_is_stopped_is_no_error(eval_stack, engine, first):
    engine.lives["sim"] = [["running", ctrl_c, lambda container: None, 0]]
    assert eval_stack(*first).code == 130
    assert nothing_is_left(engine)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_a_real_process_and_leave_nothing(number, make_step, tmp_path):
    flags = ["--checkpoint", f"first={make_step('run/1')}", "--env", "A", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, HERE / "eval_stack_on_fake_engine.py", tmp_path / "left", *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert any("sim 1 | playing" in line for line in process.stderr)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "eval-stack: Stopped. Finished episodes are kept in" in err
    assert (tmp_path / "left").read_text() == "containers: 0, networks: 0\n"


def test_keep_leaves_the_containers_stopped(eval_stack, engine, first):
    ended = eval_stack(*first, "--keep")
    assert ended.code == 0
    assert sorted(one.role for one in engine.containers.all) == ["server", "sim"]
    assert {one.attrs["State"]["Status"] for one in engine.containers.all} == {"exited"}
    assert len(engine.networks.all) == 1
    names = ", ".join(sorted(one.name for one in engine.containers.all))
    assert f"Kept: {names}. `eval-stack clean` removes them.\n" in ended.err


def test_an_engine_that_stops_is_told_with_how_to_go_on(eval_stack, engine, first, monkeypatch):
    def gone(container):
        raise EngineGone("connection refused")

    engine.lives["sim"] = [["running", gone]]
    monkeypatch.setattr(FakeContainer, "kill", lambda *_, **__: gone(None))
    ended = eval_stack(*first)
    assert ended.code == 1
    assert "Containers may be left: connection refused. `eval-stack clean` removes them.\n" in ended.err
    assert ended.err.endswith(
        "eval-stack: The Docker engine stopped answering: connection refused. Once it runs, `eval-stack clean` removes "
        "what is left, and the same command goes on where it stopped.\n"
    )


# Leftovers


def ended_process() -> Owner:
    """An owner whose process is no more."""
    code = "from eval_stack.owner import Owner; o = Owner.this_process(); print(o.run, o.host, o.process, o.started)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    run, host, process, started = said.stdout.split()
    return Owner(run, host, int(process), started)


@pytest.fixture(scope="module")
def gone() -> Owner:
    return ended_process()


def leave(engine, owner: Owner) -> None:
    name = f"chunkwire-{owner.run}-a"
    engine.containers.create(
        image="x", name=f"{name}-server", entrypoint=["serve"], command=[], mounts=[], labels=owner.labels("server")
    )
    engine.ever.clear()
    engine.networks.all.append(FakeNetwork(engine.networks, name, owner.labels("network")))


def test_a_process_is_gone_when_its_id_is_somebody_elses(gone):
    me = Owner.this_process()
    assert not me.is_gone
    assert gone.is_gone
    assert Owner(me.run, me.host, os.getpid(), "1").is_gone
    assert Owner.of(me.labels("sim")) == me
    assert not Owner(gone.run, "another-host", gone.process, gone.started).is_gone


def test_leftovers_are_told_and_stay_where_nobody_can_be_asked(eval_stack, engine, first, gone):
    leave(engine, gone)
    ended = eval_stack(*first)
    assert ended.code == 0
    name = f"chunkwire-{gone.run}-a"
    assert ended.err.startswith(
        f"Left of earlier runs, whose processes are gone: {name}-server, {name}.\n"
        "They stay. `eval-stack clean`, or --remove-leftovers, removes them.\n"
    )
    assert [one.name for one in engine.containers.all] == [f"{name}-server"]


def test_remove_leftovers_removes_them_first(eval_stack, engine, first, gone):
    leave(engine, gone)
    ended = eval_stack(*first, "--remove-leftovers")
    assert ended.code == 0
    assert "They are removed.\nStarting the server of first" in ended.err
    assert engine.history[0] == "remove server"
    assert nothing_is_left(engine)


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 1)])
def test_on_a_terminal_a_person_is_asked(eval_stack, engine, first, gone, monkeypatch, answer, left):
    leave(engine, gone)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda *_: answer)
    assert eval_stack(*first).code == 0
    assert len(engine.containers.all) == left


def test_clean_removes_what_is_left_and_nothing_that_is_needed(eval_stack, engine, gone):
    leave(engine, gone)
    leave(engine, Owner.this_process())
    ended = eval_stack("clean")
    assert ended.code == 0
    assert ended.out == f"Removed chunkwire-{gone.run}-a-server, chunkwire-{gone.run}-a.\n"
    assert len(engine.containers.all) == len(engine.networks.all) == 1
    assert eval_stack("clean").out == "Nothing is left of earlier runs.\n"


# The engine


@pytest.mark.parametrize("address", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
def test_an_engine_that_does_not_run_is_told(monkeypatch, address):
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(EngineUnavailable) as error, connected():
        pass
    assert error.value.message == (
        f"No Docker engine runs at {address}. Start it (systemctl start docker), or name another in DOCKER_HOST."
    )


def test_a_socket_that_may_not_be_used_is_told(eval_stack, monkeypatch):
    def forbidden() -> None:
        reason = ("Connection aborted.", PermissionError(13, "Permission denied"))
        raise DockerException("Error while fetching server API version") from EngineGone(*reason)

    monkeypatch.setattr(docker, "from_env", forbidden)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    ended = eval_stack("clean")
    assert ended.code == 1
    assert ended.err == (
        "eval-stack: This user may not use the Docker engine at unix:///var/run/docker.sock: permission denied. Run as "
        "root, or as root: usermod -aG docker USER, and log in again.\n"
    )


def test_any_other_answer_of_the_engine_is_passed_on(eval_stack, engine, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise refused(500, "disk is full")

    monkeypatch.setattr(engine.containers, "list", refuse)
    assert eval_stack("clean").err == "eval-stack: The Docker engine refused: disk is full.\n"
