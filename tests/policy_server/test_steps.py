"""Clients choose which step of a run is served: the real process, the real client, over either transport."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from policy_protocol.errors import ServerUnavailable, SpecMismatch, StepNotServed
from policy_protocol.spec import CheckpointId
from sim_client import PolicyClient

from .conftest import LIBERO, REHEARSED
from .rehearsed_policy import write_rehearsed_step
from .talking import arrives, ask, dial, eventually, rehearsed, samples

DAMAGED = "The weights hold NaN."


def ask_client(client, **wish):
    return client.infer(rehearsed(**wish).observation)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    for number in (9, 19, 29):
        write_rehearsed_step(run, number, LIBERO)
    write_rehearsed_step(run, 24, LIBERO, seconds=2.0)
    write_rehearsed_step(run, 15, LIBERO, fault=DAMAGED)
    wider = replace(LIBERO, policy=replace(LIBERO.policy, action_horizon=25))
    write_rehearsed_step(run, 14, wider)
    write_rehearsed_step(run, 30, LIBERO)
    (run / "30").rename(run / "30.unfinished")
    return run


@pytest.fixture(scope="module")
def server(run, rehearse_run):
    with rehearse_run(run, "--follow-on-request") as process:
        yield process.wait_ready()


@pytest.fixture(params=["websocket", "grpc"])
def client(request, server):
    """A client that finds step 29 served."""
    with PolicyClient(server.url if request.param == "websocket" else server.grpc_url) as client:
        client.load_step(29)
        yield client


def test_the_newest_step_is_served_first_and_every_complete_one_can_be_chosen(client):
    assert client.steps() == (9, 14, 15, 19, 24, 29)
    assert client.spec.policy.checkpoint.step == 29


@pytest.mark.parametrize("step", [9, 19, 29])
def test_a_step_is_served_once_it_is_loaded_and_the_client_takes_its_actions(client, server, step):
    assert client.load_step(step) == CheckpointId("pi05_libero", "tiny", step)
    assert client.spec.policy.checkpoint.step == step
    assert client.metadata["policy_spec"] == client.spec.to_wire()
    assert ask_client(client).checkpoint == f"pi05_libero/tiny/{step}"
    assert samples(server)[("checkpoint_info", str(step), "pi05_libero", "tiny")] == 1
    with PolicyClient(server.url) as other:
        assert other.spec.policy.checkpoint.step == step


def test_a_step_that_is_not_there_is_refused_with_those_that_are(client):
    with pytest.raises(StepNotServed) as error:
        client.load_step(30)
    assert error.value.message == ("There is no complete step 30 of pi05_libero/tiny. It has 9, 14, 15, 19, 24, 29.")
    assert ask_client(client).checkpoint == "pi05_libero/tiny/29"


def test_a_step_that_cannot_be_used_is_refused_and_the_one_before_goes_on(client):
    with pytest.raises(StepNotServed) as error:
        client.load_step(15)
    assert error.value.message == f"Step 15 cannot be served: {DAMAGED}"
    assert ask_client(client).checkpoint == "pi05_libero/tiny/29"


def test_a_step_of_another_policy_is_not_taken(client):
    with pytest.raises(SpecMismatch) as error:
        client.load_step(14)
    assert "policy.action_horizon is 25, not 20. Start anew with it." in error.value.message
    with PolicyClient(client.url) as other, pytest.raises(SpecMismatch, match="is another policy than .*/14"):
        other.load_step(29)


def test_requests_are_answered_while_a_step_loads_from_the_one_before(client, server):
    with dial(server) as other:
        loading = threading.Thread(target=client.load_step, args=(24,))
        arrives(server, loading.start, "grpc" if client.url.startswith("grpc") else "websocket")
        assert ask(other, rehearsed(1)).chunk.checkpoint == "pi05_libero/tiny/29"
        loading.join(20)
        assert ask(other, rehearsed(2)).chunk.checkpoint == "pi05_libero/tiny/24"


def test_a_client_that_leaves_while_its_step_loads_harms_nobody(client, server):
    with PolicyClient(server.url, reply_timeout=0.2) as hasty, pytest.raises(ServerUnavailable) as error:
        hasty.load_step(24)
    assert error.value.message.startswith(f"The policy server at {server.url} did not load the step within 0.2 s.")
    assert client.load_step(9).step == 9  # after the 24 that was begun
    assert ask_client(client).checkpoint == "pi05_libero/tiny/9"


def test_another_client_is_refused_actions_of_a_step_that_it_did_not_ask_for(client, server):
    with PolicyClient(server.url) as other:
        client.load_step(9)
        with pytest.raises(SpecMismatch, match="answered from checkpoint pi05_libero/tiny/9"):
            ask_client(other)


def test_every_server_of_a_client_loads_the_step(server, run, rehearse_run):
    with rehearse_run(run, "--follow-on-request", "--no-grpc") as process:
        second = process.wait_ready()
        with PolicyClient([server.grpc_url, second.url]) as client:
            for step in (9, 19):
                client.load_step(step)
                assert {ask_client(client).checkpoint for _ in range(4)} == {f"pi05_libero/tiny/{step}"}
            (run / "39").mkdir()
            write_rehearsed_step(run / "39", 1, LIBERO)  # a folder that is no step
            assert client.steps() == (9, 14, 15, 19, 24, 29)
            client.load_step(29)
        second.stop()
        with PolicyClient([server.url, second.url], connect_timeout=3) as client:
            with pytest.raises(ServerUnavailable, match="does not answer .*, and every one must load the step"):
                client.load_step(19)


def test_servers_at_different_steps_are_told_apart_before_either_is_asked(server, run, rehearse_run):
    with rehearse_run(run, "--follow-on-request", "--no-grpc") as process:
        second = process.wait_ready()
        urls = [server.grpc_url, second.url]
        with PolicyClient(server.url) as one, PolicyClient(second.url) as other:
            one.load_step(9)
            other.load_step(29)
        with PolicyClient(urls) as client:
            with pytest.raises(SpecMismatch) as error:
                ask_client(client)
            assert error.value.message == (
                f"The policy servers serve different checkpoints: {urls[0]} serves pi05_libero/tiny/9, {urls[1]} "
                "serves pi05_libero/tiny/29. Have all of them load one with load_step(STEP), start them with the same "
                "--checkpoint, or make the client with allow_newer_checkpoint=True."
            )
            client.load_step(19)
            assert {ask_client(client).checkpoint for _ in range(4)} == {"pi05_libero/tiny/19"}
        with PolicyClient(server.url) as one:
            one.load_step(9)
        with PolicyClient(urls, allow_newer_checkpoint=True) as client:
            steps = {ask_client(client).checkpoint for _ in range(4)}
        assert steps == {"pi05_libero/tiny/9", "pi05_libero/tiny/19"}


def test_sigterm_does_not_wait_for_a_step_that_loads(tmp_path, rehearse_run):
    write_rehearsed_step(tmp_path, 9, LIBERO)
    write_rehearsed_step(tmp_path, 8, LIBERO, seconds=300)
    errors = []

    def load(client):
        try:
            client.load_step(8)
        except Exception as error:
            errors.append(error)

    with rehearse_run(tmp_path, "--follow-on-request") as server:
        server.wait_ready()
        with PolicyClient(server.url) as client:
            loading = threading.Thread(target=load, args=(client,))
            arrives(server, loading.start)
            server.process.terminate()
            assert server.process.wait(15) == 0
            loading.join(15)
        eventually(lambda: "ended without waiting for what was loading or compiling" in server.log)
    assert errors[0].message == "The server is shutting down and does not wait for the step to load."


def test_sigterm_does_not_wait_for_a_newer_step_that_loads(tmp_path, rehearse_run):
    write_rehearsed_step(tmp_path, 8, LIBERO)
    with rehearse_run(tmp_path) as server:
        server.wait_ready()
        write_rehearsed_step(tmp_path, 9, LIBERO, seconds=300)
        eventually(lambda: "reading step 9" in server.log)
        server.process.terminate()
        assert server.process.wait(15) == 0
        eventually(lambda: "ended without waiting" in server.log)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_does_not_wait_for_a_shape_that_compiles(tmp_path, rehearse_run, number, status):
    write_rehearsed_step(tmp_path, 9, LIBERO)
    with rehearse_run(tmp_path, REHEARSED_COMPILE_S="300") as server:
        server.wait_listening()
        server.process.send_signal(number)
        assert server.process.wait(15) == status
        eventually(lambda: "ended without waiting" in server.log)
    assert "stopped while compiling" in server.log


def test_a_server_that_follows_by_itself_loads_nothing_on_request(tmp_path, rehearse_run):
    write_rehearsed_step(tmp_path, 9, LIBERO)
    with rehearse_run(tmp_path) as server, PolicyClient(server.wait_ready().url) as client:
        with pytest.raises(StepNotServed) as error:
            client.steps()
    assert error.value.message == (
        f"The policy server at {server.url} loads no steps on request. "
        "Start it with `serve --follow RUN --follow-on-request`."
    )


def test_steps_to_ask_for_need_a_run_to_follow(environment, spec_file):
    command = [sys.executable, REHEARSED, "--policy", "rehearsed", "--spec", spec_file, "--follow-on-request"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "It needs --follow RUN_DIR, whose steps clients ask for." in " ".join(done.stderr.replace("│", " ").split())
