"""The real process: unmodified openpi clients, envelopes, bad requests, signals."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import threading

import numpy as np
import pytest
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from policy_protocol import InferReply, InferRequest, PolicySpec, pack, unpack

from .conftest import CHECKPOINT, LIBERO, SERVE, TOKENIZER, ServerProcess


@contextlib.contextmanager
def dial(server):
    with connect(server.url, compression=None, max_size=None) as connection:
        connection.recv(timeout=60)
        yield connection


def ask(connection, request):
    connection.send(pack(request.to_wire()))
    return InferReply.from_wire(unpack(connection.recv(timeout=60)).value)


def send_until_closed(connection, frame):
    with contextlib.suppress(ConnectionClosed):
        connection.send(frame)


def test_the_package_openpi_client_unmodified_gets_chunks(server, observation):
    client = WebsocketClientPolicy("127.0.0.1", server.port)
    assert PolicySpec.from_wire(client.get_server_metadata()["policy_spec"]) == LIBERO
    for _ in range(3):
        answer = client.infer(observation)
        assert answer["actions"].shape == (20, 7)
        assert np.all(np.isfinite(answer["actions"]))
        assert answer["policy_timing"]["infer_ms"] > 1  # the finished result, not the dispatch


def test_an_openpi_client_learns_what_was_wrong_and_goes_on(server, observation):
    client = WebsocketClientPolicy("127.0.0.1", server.port)
    with pytest.raises(RuntimeError, match="invalid_argument: The observation lacks 'observation/image'"):
        client.infer({"prompt": "x"})
    assert client.infer(observation)["actions"].shape == (20, 7)


def test_recorded_actions_of_openpi_come_out_of_the_server(server):
    recorded = np.load(CHECKPOINT.parents[2] / "tiny_pi05_policy.npz")
    raw = {name.split("|")[2]: recorded[name] for name in recorded if name.startswith("obs|b_96|")}
    observation = {name: value.item() if value.dtype.kind == "U" else value for name, value in raw.items()}
    with dial(server) as connection:
        one, two = (ask(connection, InferRequest(i, observation, noise_seed=1)).chunk.actions for i in range(2))
    np.testing.assert_array_equal(one, two)
    # The noise differs from the recording's, so the actions do too; they stay on its scale.
    assert np.abs(one).max() < 10 * np.abs(recorded["f32|b_96|actions"]).max()


def test_the_same_seed_gives_the_same_actions_alone_or_in_a_batch(server, observation):
    with dial(server) as connection:
        alone = ask(connection, InferRequest(0, observation, noise_seed=5)).chunk.actions
        for i in range(1, 9):
            connection.send(pack(InferRequest(i, observation, noise_seed=5).to_wire()))
        replies = [InferReply.from_wire(unpack(connection.recv(timeout=60)).value) for _ in range(8)]
    assert {reply.id for reply in replies} == set(range(1, 9))
    for reply in replies:
        np.testing.assert_allclose(reply.chunk.actions, alone, atol=1e-5)


def test_without_a_seed_the_noise_is_fresh(server, observation):
    with dial(server) as connection:
        one, two = (ask(connection, InferRequest(i, observation)).chunk.actions for i in range(2))
    assert np.abs(one - two).max() > 1e-3


def test_a_batched_request_gets_one_chunk_a_row(server, observation):
    rows = {key: value if isinstance(value, str) else np.stack([value] * 6) for key, value in observation.items()}
    with dial(server) as connection:
        chunk = ask(connection, InferRequest(1, rows, noise_seed=2, batch=6)).chunk
    assert chunk.actions.shape == (6, 20, 7)
    assert np.abs(chunk.actions[0] - chunk.actions[1]).max() > 1e-3  # rows do not share their noise


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"observation/state": np.zeros(3)}, "observation/state", "must be 8 numbers"),
        ({"observation/state": np.full(8, np.nan)}, "observation/state", "NaN, infinity"),
        ({"observation/state": np.full(8, 1e308)}, "observation/state", "beyond 1e30"),
        ({"observation/state": [[1], [1, 2]]}, "observation/state", "is no array"),
        ({"observation/image": np.zeros((4, 4), np.uint8)}, "observation/image", "must be an image"),
        ({"observation/image": np.zeros((4, 4, 3), np.int64)}, "observation/image", "must be uint8"),
        ({"prompt": 3}, "prompt", "must be a string"),
        ({"prompt": "word " * 80}, "prompt", "tokens"),
    ],
)
def test_a_bad_observation_is_answered_and_the_connection_survives(server, observation, change, field, message):
    with dial(server) as connection:
        error = ask(connection, InferRequest(1, {**observation, **change})).error
        assert error.code == "invalid_argument"
        assert error.field == field
        assert message in error.message
        assert ask(connection, InferRequest(2, observation)).chunk is not None


@pytest.mark.parametrize("frame", [b"\xc1 garbage", "text", pack([1, 2])])
def test_a_frame_that_is_no_message_closes_the_connection_with_1007(server, frame):
    with dial(server) as connection:
        connection.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=60)
    assert closed.value.rcvd.code == 1007


def test_an_oversized_frame_closes_with_1009(server):
    with dial(server) as connection:
        sender = threading.Thread(target=send_until_closed, args=(connection, bytes(65 * 1024 * 1024)))
        sender.start()
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=60)
        sender.join(60)
    assert closed.value.rcvd.code == 1009


def test_pages(server):
    assert server.page("/healthz") == (200, "OK\n")
    assert server.page("/readyz") == (200, "OK\n")
    status, body = server.page("/spec")
    assert status == 200
    assert PolicySpec.from_wire(json.loads(body)) == LIBERO


def test_a_client_that_comes_while_shapes_compile_is_greeted_when_they_are_done(launch, observation):
    with launch("--batch-sizes", "1,2,3,4") as server:
        server.wait_listening()
        assert server.page("/healthz")[0] == 200
        assert server.page("/readyz") == (503, "compiling\n")
        client = WebsocketClientPolicy("127.0.0.1", server.port)
        assert server.page("/readyz")[0] == 200
        assert client.infer(observation)["actions"].shape == (20, 7)


def test_sigterm_finishes_what_is_in_flight_and_exits_0(launch, observation):
    with launch() as server:
        server.wait_ready()
        with dial(server) as connection:
            for i in range(12):
                connection.send(pack(InferRequest(i, observation).to_wire()))
            ids = {InferReply.from_wire(unpack(connection.recv(timeout=60)).value).id}
            server.process.send_signal(signal.SIGTERM)
            try:
                while True:
                    reply = InferReply.from_wire(unpack(connection.recv(timeout=60)).value)
                    assert reply.chunk is not None or reply.error.code == "draining"
                    ids.add(reply.id)
            except ConnectionClosed:
                pass
        assert ids == set(range(12))
        assert server.process.wait(30) == 0
        assert "draining" in server.log


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_an_idle_server_and_its_greeted_clients(launch, number, status):
    with launch("--batch-sizes", "1") as server:
        server.wait_ready()
        with dial(server) as connection:
            server.process.send_signal(number)
            with pytest.raises(ConnectionClosed):
                connection.recv(timeout=30)
            assert server.process.wait(30) == status


def test_sigterm_while_compiling_does_not_wait_for_clients_that_wait(launch):
    with launch("--batch-sizes", "1,2,3,4,5,6,7,8") as server:
        server.wait_listening()
        with connect(server.url) as connection:
            server.process.terminate()
            with pytest.raises(ConnectionClosed):
                connection.recv(timeout=60)
            assert server.process.wait(60) == 0
        assert "stopped while compiling" in server.log


def test_a_client_that_vanishes_harms_nobody(server, observation):
    for _ in range(3):
        with dial(server) as connection:
            connection.send(pack(InferRequest(1, observation).to_wire()))
            connection.socket.shutdown(socket.SHUT_RDWR)
    with dial(server) as connection:
        assert ask(connection, InferRequest(1, observation)).chunk is not None


def test_many_clients_are_served_at_once(server, observation):
    shapes = []

    def client():
        with dial(server) as connection:
            for i in range(3):
                shapes.append(ask(connection, InferRequest(i, observation)).chunk.actions.shape)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert shapes == [(20, 7)] * 24


def test_a_released_policy_is_served_by_its_name(environment, observation):
    """The tiny checkpoint lies under LIBERO's asset id, so openpi's own spec serves it, with its chunks of 10."""
    arguments = ["--checkpoint", CHECKPOINT, "--spec", "pi05_libero", "--tokenizer", TOKENIZER]
    server = ServerProcess([*arguments, "--batch-sizes", "1", "--port", 0], environment)
    try:
        server.wait_ready()
        client = WebsocketClientPolicy("127.0.0.1", server.port)
        assert client.infer(observation)["actions"].shape == (10, 7)
    finally:
        server.stop()


def run_serve(environment, *arguments):
    return subprocess.run([SERVE, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120)


def test_a_port_that_is_taken_is_said_so(server, spec_file, environment):
    done = run_serve(
        environment, "--checkpoint", CHECKPOINT, "--spec", spec_file, "--tokenizer", TOKENIZER, "--port", server.port
    )
    assert done.returncode == 1
    assert f"Port {server.port} on 127.0.0.1 is taken" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_of_another_machine_is_said_so(spec_file, environment):
    base = ("--checkpoint", CHECKPOINT, "--spec", spec_file, "--tokenizer", TOKENIZER, "--port", 0)
    done = run_serve(environment, *base, "--host", "203.0.113.1")
    assert done.returncode == 1
    assert "203.0.113.1:0 cannot be listened on" in done.stderr
    assert "Check --host and --port" in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_weights_are_said_so_in_one_line(environment, spec_file, tmp_path):
    damaged = tmp_path / "100"
    shutil.copytree(CHECKPOINT, damaged)
    for part in (damaged / "params/ocdbt.process_0/d").iterdir():
        part.write_bytes(b"")
    done = run_serve(environment, "--checkpoint", damaged, "--spec", spec_file, "--tokenizer", TOKENIZER)
    assert done.returncode == 1
    assert "the checkpoint is damaged or incomplete" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nowhere"], "There is no checkpoint at nowhere"),
        (["--checkpoint", CHECKPOINT.parent], f"is a run, not a step. Pass one of its steps: {CHECKPOINT}"),
        (["--checkpoint", CHECKPOINT], "has no assets/policy_spec.json"),
        (
            ["--checkpoint", CHECKPOINT, "--spec", "pi05_libro"],
            "Did you mean 'pi05_libero'? Built in: pi05",
        ),
        (["--checkpoint", CHECKPOINT, "--spec", "nowhere.json"], "nowhere.json cannot be read"),
        (["--checkpoint", CHECKPOINT, "--spec", TOKENIZER], "is no policy spec: it is not text"),
        (["--checkpoint", CHECKPOINT, "--port", 99999], "Invalid value for '--port'"),
        (["--checkpoint", CHECKPOINT, "--batch-sizes", "a"], "not a list of batch sizes"),
        (["--checkpoint", CHECKPOINT, "--dtype", "int8"], "neither bfloat16 nor float32"),
    ],
)
def test_a_command_that_cannot_work_says_why(environment, arguments, message):
    done = run_serve(environment, *arguments)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
