"""The policy client against a real server on a free port."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from fake_policy_server import FakePolicyServer, chunk_of

from policy_protocol import EpisodeMoment, InferReply
from policy_protocol.errors import (
    CodecError,
    InvalidObservation,
    ProtocolViolation,
    RemoteError,
    ServerUnavailable,
    Unauthenticated,
)
from sim_client import PolicyClient
from sim_client.errors import InvalidOption
from sim_client.wire.exchange import Exchange
from sim_client.wire.server_address import server_url

OBSERVATION = {
    "observation/image": np.zeros((64, 64, 3), np.uint8),
    "observation/state": np.zeros(8, np.float32),
    "prompt": "Pull a cube.",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("ws://robot:9000", "ws://robot:9000"),
        ("wss://robot.lab", "wss://robot.lab"),
        ("robot:9000", "ws://robot:9000"),
        ("robot", "ws://robot:8000"),
        ("http://robot:8000/", "ws://robot:8000"),
        ("[::1]:8000", "ws://[::1]:8000"),
        ("grpc://robot", "grpc://robot:8001"),
        ("grpc://[::1]:9/", "grpc://[::1]:9"),
        ("grpcs://robot.lab", "grpcs://robot.lab:443"),
    ],
)
def test_addresses_are_taken_as_people_write_them(address: str, url: str):
    assert server_url(address) == url


@pytest.mark.parametrize("address", ["", "ftp://robot:21", "ws://:8000", "robot:port", "ws://a..b:8000"])
def test_an_address_that_is_none_names_the_flag_and_the_forms(address: str):
    with pytest.raises(InvalidOption, match=r"--server .* is not the address of a policy server: .*HOST:PORT"):
        server_url(address)


def test_a_chunk_comes_with_the_round_trip_time_and_the_servers_own(spec, start_server):
    server = start_server()
    with PolicyClient(server.url) as policy:
        chunk = policy.infer(OBSERVATION, noise_seed=7, episode=EpisodeMoment("PushCube-v1", 3, 0), deadline_ms=500)
    assert policy.spec == spec
    assert policy.metadata["protocol"] == "chunkwire/1"
    assert chunk.actions.shape == (4, 7)
    assert chunk.timing["infer_ms"] == 1.5
    assert chunk.timing["round_trip_ms"] > 0
    (request,) = server.requests
    assert (request.noise_seed, request.episode, request.deadline_ms) == (7, EpisodeMoment("PushCube-v1", 3, 0), 500)


def test_both_sides_hash_a_spec_alike_however_its_numbers_are_spelt(spec, start_server):
    lengths = {"q50": 10, "q95": 11, "max": 12}
    whole = replace(spec, simulation=replace(spec.simulation, demonstration_length=lengths))
    with PolicyClient(start_server(of=whole).url) as policy:
        assert policy.spec.hash == whole.hash == spec.hash


def test_a_batch_is_answered_with_a_leading_dimension(start_server):
    with PolicyClient(start_server().url) as policy:
        assert policy.infer({**OBSERVATION, "prompt": ["a", "b"]}, batch=2).actions.shape == (2, 4, 7)


def test_the_api_key_travels_in_the_authorization_header(start_server):
    server = start_server()
    PolicyClient(server.url, api_key="secret").close()
    assert server.headers[0]["Authorization"] == "Api-Key secret"


def test_an_unknown_reply_id_is_a_violation_and_ends_the_connection(spec, start_server):
    server = start_server(lambda request: {**chunk_of(spec, request), "id": request.id + 5})
    with PolicyClient(server.url) as policy:
        with pytest.raises(ProtocolViolation, match="answered request 5, but request 0 is awaited"):
            policy.infer(OBSERVATION)
        with pytest.raises(ProtocolViolation, match="answered request 6, but request 1 is awaited"):
            policy.infer(OBSERVATION)
    assert len(server.headers) == 2  # each on a connection of its own


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((4, 6), np.float32), r"actions of shape \(4, 6\), but its spec promises \(4, 7\)"),
        (np.full((4, 7), np.nan, np.float32), r"sent nan at actions\[0, 0\]; every action must be finite"),
        (np.full((4, 7), np.inf, np.float32), r"sent inf at actions\[0, 0\]"),
        (np.zeros((4, 7), np.int64), r"holds no floating-point `actions` array"),
    ],
)
def test_actions_that_break_the_promise_are_refused(start_server, actions, message):
    server = start_server(lambda request: {"id": request.id, "actions": actions})
    with PolicyClient(server.url) as policy, pytest.raises(ProtocolViolation, match=message):
        policy.infer(OBSERVATION)


def test_an_error_of_the_server_keeps_its_kind_and_the_connection(spec, start_server):
    wire = {"code": "invalid_argument", "message": "The state is too short.", "field": "observation/state"}
    answers = [lambda request: {"id": request.id, "error": wire}, lambda request: chunk_of(spec, request)]
    with PolicyClient(start_server(lambda request: answers.pop(0)(request)).url) as policy:
        with pytest.raises(InvalidObservation, match="The state is too short") as caught:
            policy.infer(OBSERVATION)
        assert caught.value.field == "observation/state"
        assert policy.infer(OBSERVATION).actions.shape == (4, 7)


def test_a_late_reply_after_a_text_frame_is_never_taken_for_the_next_answer(spec, start_server):
    answers = [lambda request: ["overloaded: ask again later", chunk_of(spec, request, 9.0)]]
    answers.append(lambda request: chunk_of(spec, request, 1.0))
    server = start_server(lambda request: answers.pop(0)(request))
    with PolicyClient(server.url) as policy:
        with pytest.raises(RemoteError, match="answered: overloaded: ask again later"):
            policy.infer(OBSERVATION)
        assert policy.infer(OBSERVATION).actions[0, 0] == 1.0
    assert len(server.headers) == 2


def test_the_reply_to_an_earlier_request_is_no_answer_to_this_one(spec):
    exchange = Exchange(spec)
    earlier, awaited = exchange.ask(OBSERVATION), exchange.ask(OBSERVATION)
    with pytest.raises(ProtocolViolation, match="answered request 0, but request 1 is awaited"):
        exchange.settle(awaited, InferReply.from_wire(chunk_of(spec, earlier)), "ws://server")


def test_a_text_frame_is_the_servers_complaint(start_server):
    with PolicyClient(start_server(lambda request: "internal: see the log").url) as policy:
        with pytest.raises(RemoteError, match="answered: internal: see the log"):
            policy.infer(OBSERVATION)


def test_a_connection_lost_in_a_request_says_so(start_server):
    with PolicyClient(start_server(lambda request: None).url) as policy:
        with pytest.raises(ServerUnavailable, match=r"connection to the policy server at ws://\S+ was lost: .*`serve"):
            policy.infer(OBSERVATION)


def test_a_silent_server_counts_as_lost_after_the_reply_timeout(spec, start_server):
    release = threading.Event()
    server = start_server(lambda request: chunk_of(spec, request) if release.wait(10) else None)
    with PolicyClient(server.url, reply_timeout=0.2) as policy:
        with pytest.raises(ServerUnavailable, match=r"did not answer within 0.2 s.*--reply-timeout"):
            policy.infer(OBSERVATION)
        release.set()


def test_without_a_server_the_message_has_the_address_the_time_and_what_to_do():
    url = f"ws://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(ServerUnavailable) as caught:
        PolicyClient(url, connect_timeout=0.5)
    assert 0.3 < time.monotonic() - started < 5
    for part in (
        url,
        "tried for 0.5 s",
        "connection refused",
        "serve --checkpoint DIR",
        "--server",
        "--connect-timeout",
    ):
        assert part in caught.value.message


def test_the_client_waits_for_a_server_that_starts_late(spec):
    port, waits, servers = free_port(), [], []
    timer = threading.Timer(0.5, lambda: servers.append(FakePolicyServer(spec, port=port)))
    timer.start()
    with PolicyClient(f"127.0.0.1:{port}", connect_timeout=20, on_wait=waits.append) as policy:
        assert policy.spec == spec
    servers[0].stop()
    assert len(waits) == 1
    assert "Waiting up to 20 s" in waits[0]


def test_the_client_waits_for_a_server_that_refuses_until_it_is_ready(spec, start_server):
    server = start_server(refusals=2, status=503)
    with PolicyClient(server.url, connect_timeout=20) as policy:
        assert policy.spec == spec


def test_the_client_waits_for_a_greeting_and_says_that_the_server_compiles(spec, start_server):
    ready, waits = threading.Event(), []
    threading.Timer(2.5, ready.set).start()
    with PolicyClient(start_server(ready=ready).url, connect_timeout=20, on_wait=waits.append) as policy:
        assert policy.spec == spec
    assert len(waits) == 1
    assert "it accepts connections but is not ready: still loading or compiling" in waits[0]


def test_a_greeting_that_never_comes_ends_with_the_connect_timeout(start_server):
    ready = threading.Event()
    server = start_server(ready=ready)
    with pytest.raises(ServerUnavailable, match=r"tried for 0.5 s; it accepts connections but is not ready"):
        PolicyClient(server.url, connect_timeout=0.5)
    ready.set()


def test_a_server_that_never_becomes_ready_is_told_apart(start_server):
    server = start_server(refusals=1000, status=503)
    with pytest.raises(ServerUnavailable, match="it is alive but not ready, HTTP 503"):
        PolicyClient(server.url, connect_timeout=0.4)


def test_a_refused_api_key_is_not_tried_again(start_server):
    server = start_server(refusals=1000, status=401)
    with pytest.raises(Unauthenticated, match=r"refused the API key \(HTTP 401\).*--api-key-file"):
        PolicyClient(server.url, connect_timeout=20)
    assert len(server.headers) == 1


def test_a_server_without_a_spec_is_explained(start_server):
    server = start_server(greeting={"action_horizon": 10})
    with pytest.raises(ProtocolViolation, match="sent no policy spec on connecting.*serve --checkpoint"):
        PolicyClient(server.url)


def test_another_protocol_version_names_both(spec, start_server):
    server = start_server(greeting={"protocol": "chunkwire/2", "policy_spec": spec.to_wire()})
    with pytest.raises(ProtocolViolation, match="speaks 'chunkwire/2', this client 'chunkwire/1'"):
        PolicyClient(server.url)


def test_ids_do_not_repeat_within_a_connection(start_server):
    server = start_server()
    with PolicyClient(server.url) as policy:
        for _ in range(3):
            policy.infer(OBSERVATION)
    assert [request.id for request in server.requests] == [0, 1, 2]


def test_an_observation_that_cannot_be_packed_leaves_the_connection_usable(start_server):
    with PolicyClient(start_server().url) as policy:
        with pytest.raises(CodecError, match="cannot be sent"):
            policy.infer({"prompt": object()})
        assert policy.infer(OBSERVATION).actions.shape == (4, 7)
