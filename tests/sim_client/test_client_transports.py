"""The client's rules over both transports: deadlines, lost connections, full servers, several servers."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, cycle, repeat

import grpc
import numpy as np
import pytest
from fake_grpc_server import FakeGrpcServer
from fake_policy_server import FakePolicyServer, MalformedFrame, chunk_of

from policy_protocol import EpisodeMoment
from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import (
    CodecError,
    DeadlineExceeded,
    Draining,
    InvalidObservation,
    Overloaded,
    ProtocolViolation,
    ServerUnavailable,
    SpecMismatch,
    Unauthenticated,
)
from sim_client import PolicyClient
from sim_client.errors import InvalidOption
from sim_client.wire.grpc_link import GrpcLink
from sim_client.wire.websocket_link import WebSocketLink

OBSERVATION = {
    "observation/image": np.zeros((64, 64, 3), np.uint8),
    "observation/state": np.zeros(8, np.float32),
    "prompt": "Pull a cube.",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(params=[FakePolicyServer, FakeGrpcServer], ids=["websocket", "grpc"])
def serve(request, spec):
    """Start servers of one transport that are stopped with the test."""
    servers = []

    def start(answer=None, *, of=spec, **options):
        servers.append(request.param(of, answer, **options))
        return servers[-1]

    start.scheme = "grpc" if request.param is FakeGrpcServer else "ws"
    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def dial():
    """Clients that are closed with the test."""
    clients = []

    def connect(servers, **options):
        clients.append(PolicyClient(servers, **{"connect_timeout": 10, **options}))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def turns(*answers):
    """Answer each request with the next of these; the last one answers all that follow."""
    left = list(answers)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)


def error(code, **more):
    return lambda request: {"id": request.id, "error": {"code": code, "message": "So it is.", **more}}


def test_a_chunk_comes_with_everything_that_was_asked(spec, serve, dial):
    server = serve()
    policy = dial(server.url, api_key="secret")
    assert policy.spec == spec
    assert policy.url == server.url
    moment = EpisodeMoment("PushCube-v1", 3, 0)
    chunk = policy.infer(OBSERVATION, noise_seed=7, episode=moment, deadline_ms=500)
    assert chunk.actions.shape == (4, 7)
    assert chunk.timing["infer_ms"] == 1.5
    assert chunk.timing["round_trip_ms"] > 0
    (request,) = server.requests
    assert (request.noise_seed, request.episode, request.deadline_ms) == (7, moment, 500)
    headers = {name.lower(): value for name, value in dict(server.headers[0]).items()}
    assert headers["authorization"] == "Api-Key secret"
    assert policy.infer({**OBSERVATION, "prompt": ["a", "b"]}, batch=2).actions.shape == (2, 4, 7)


def test_an_error_of_the_server_keeps_its_kind_and_the_connection(spec, serve, dial):
    bad = error("invalid_argument", field="observation/state")
    server = serve(turns(bad, lambda request: chunk_of(spec, request)))
    policy = dial(server.url)
    with pytest.raises(InvalidObservation, match="So it is") as caught:
        policy.infer(OBSERVATION)
    assert caught.value.field == "observation/state"
    assert policy.infer(OBSERVATION).actions.shape == (4, 7)
    assert len(server.headers) == 1


def test_a_deadline_is_kept_although_the_server_is_silent_and_its_late_reply_is_passed_over(spec, serve, dial):
    release = threading.Event()

    def late(request):
        assert release.wait(10)
        return chunk_of(spec, request, 9.0)

    server = serve(turns(late, lambda request: chunk_of(spec, request, 1.0)))
    policy = dial(server.url)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"^There was no answer within the deadline of 200 ms\.$"):
        policy.infer(OBSERVATION, noise_seed=1, deadline_ms=200)
    assert 0.15 < time.monotonic() - began < 2
    release.set()
    assert policy.infer(OBSERVATION).actions[0, 0] == 1.0
    assert len(server.headers) == 1  # on the same connection


def test_a_silent_server_counts_as_lost_after_the_reply_timeout(spec, serve, dial):
    release = threading.Event()
    policy = dial(serve(lambda request: chunk_of(spec, request) if release.wait(10) else None).url, reply_timeout=0.2)
    with pytest.raises(ServerUnavailable, match=r"did not answer within 0.2 s.*--reply-timeout"):
        policy.infer(OBSERVATION, noise_seed=1)
    release.set()


def test_a_request_with_a_seed_is_asked_again_when_the_connection_broke(spec, serve, dial):
    server = serve(turns(lambda request: None, lambda request: chunk_of(spec, request, 1.0)))
    chunk = dial(server.url).infer(OBSERVATION, noise_seed=5)
    assert chunk.actions[0, 0] == 1.0
    assert [request.noise_seed for request in server.requests] == [5, 5]
    assert len({request.id for request in server.requests}) == 2


def test_a_request_without_a_seed_is_not_asked_again_but_the_next_one_connects_anew(spec, serve, dial):
    server = serve(turns(lambda request: None, lambda request: chunk_of(spec, request)))
    policy = dial(server.url)
    with pytest.raises(ServerUnavailable, match=r"The connection to the policy server at \S+ was lost: .*`serve"):
        policy.infer(OBSERVATION)
    assert len(server.requests) == 1
    assert policy.infer(OBSERVATION).actions.shape == (4, 7)


def test_a_request_that_breaks_every_connection_is_given_up_after_three(serve, dial):
    server = serve(lambda request: None)
    with pytest.raises(ServerUnavailable, match="was lost"):
        dial(server.url).infer(OBSERVATION, noise_seed=1)
    assert len(server.requests) == 3


def test_a_server_that_comes_back_is_found_again(spec, serve, dial):
    server, waits = serve(), []
    policy = dial(server.url, on_wait=waits.append)
    policy.infer(OBSERVATION)
    server.stop()
    timer = threading.Timer(0.7, lambda: serve(port=server.port))
    timer.start()
    assert policy.infer(OBSERVATION, noise_seed=1).actions.shape == (4, 7)
    timer.join()
    assert len(waits) == 1
    assert waits[0].startswith(f"Waiting up to 10 s for the policy server at {server.url} (connection refused")


def test_a_server_that_stays_away_is_given_up_after_the_connect_timeout(serve, dial):
    server = serve()
    policy = dial(server.url, connect_timeout=0.6)
    server.stop()
    began = time.monotonic()
    with pytest.raises(
        ServerUnavailable, match=r"No policy server answers at \S+ \(tried for 0.6 s; connection refused"
    ):
        policy.infer(OBSERVATION, noise_seed=1)
    assert 0.3 < time.monotonic() - began < 5


def test_the_deadline_bounds_the_wait_for_a_server_that_is_gone(serve, dial):
    server = serve()
    policy = dial(server.url)
    server.stop()
    began = time.monotonic()
    with pytest.raises((DeadlineExceeded, ServerUnavailable)):
        policy.infer(OBSERVATION, noise_seed=1, deadline_ms=500)
    assert time.monotonic() - began < 3


def test_a_full_server_is_asked_again_when_it_said(spec, serve, dial):
    server = serve(turns(error("overloaded", retry_after_ms=300), lambda request: chunk_of(spec, request)))
    began = time.monotonic()
    assert dial(server.url).infer(OBSERVATION).actions.shape == (4, 7)  # safe without a seed: it was not begun
    assert time.monotonic() - began >= 0.3
    assert len(server.requests) == 2


def test_a_full_server_is_not_waited_for_beyond_the_deadline(serve, dial):
    server = serve(error("overloaded", retry_after_ms=5000))
    began = time.monotonic()
    with pytest.raises(Overloaded, match="So it is"):
        dial(server.url).infer(OBSERVATION, deadline_ms=400)
    assert time.monotonic() - began < 2
    assert len(server.requests) == 1


def test_a_full_server_leaves_its_question_to_a_free_one_at_once(spec, serve, dial):
    full, free = serve(error("overloaded", retry_after_ms=5000)), serve()
    policy = dial([full.url, free.url])
    began = time.monotonic()
    for _ in range(4):
        assert policy.infer(OBSERVATION).actions.shape == (4, 7)
    assert time.monotonic() - began < 3
    assert full.requests


def test_where_every_server_is_full_the_soonest_is_waited_for(spec, serve, dial):
    busy = [
        serve(turns(error("overloaded", retry_after_ms=pause), lambda request: chunk_of(spec, request)))
        for pause in (5000, 300)
    ]
    policy = dial([server.url for server in busy])
    began = time.monotonic()
    assert policy.infer(OBSERVATION).actions.shape == (4, 7)
    assert 0.3 <= time.monotonic() - began < 3
    assert sum(len(server.requests) for server in busy) == 3


def test_a_timer_that_fires_early_is_still_the_deadlines(serve, dial, monkeypatch):
    policy = dial(serve().url)

    def early(*_):
        raise TimeoutError

    for link in (GrpcLink, WebSocketLink):
        monkeypatch.setattr(link, "ask", early)
    with pytest.raises(DeadlineExceeded, match=r"^There was no answer within the deadline of 5000 ms\.$"):
        policy.infer(OBSERVATION, deadline_ms=5000)


def test_a_server_that_shuts_down_is_left_for_the_one_that_follows_it(spec, serve, dial):
    server = serve(turns(error("draining"), lambda request: chunk_of(spec, request)))
    assert dial(server.url).infer(OBSERVATION).actions.shape == (4, 7)
    assert len(server.headers) == 2


def test_a_server_that_only_ever_shuts_down_is_given_up(serve, dial):
    with pytest.raises(Draining, match="So it is"):
        dial(serve(error("draining")).url, connect_timeout=0.8).infer(OBSERVATION)


def test_a_server_that_comes_back_with_another_policy_is_refused_by_field(spec, serve, dial):
    server = serve()
    policy = dial(server.url)
    server.stop()
    other = replace(spec, policy=replace(spec.policy, denoising_steps=3))
    serve(port=server.port, of=other)
    with pytest.raises(SpecMismatch) as caught:
        policy.infer(OBSERVATION, noise_seed=1)
    assert caught.value.message == (
        f"The policy server at {server.url} now serves another policy (tiny/test/9, spec {other.hash} instead of "
        f"{spec.hash}): policy.denoising_steps is 3, not 2. Serve the first one again, or start anew with this one."
    )


def test_a_checkpoint_that_changes_under_a_live_connection_is_refused_unless_allowed(spec, serve, dial):
    def trained(step):
        return lambda request: {**chunk_of(spec, request), "checkpoint": f"tiny/test/{step}"}

    server = serve(turns(trained(9), trained(19)))
    policy = dial(server.url)
    assert policy.infer(OBSERVATION).checkpoint == "tiny/test/9"
    with pytest.raises(SpecMismatch) as caught:
        policy.infer(OBSERVATION)
    assert caught.value.message == (
        f"The policy server at {server.url} answered from checkpoint tiny/test/19, but tiny/test/9 was served before. "
        "Start anew with this one, serve a fixed one with `serve --checkpoint DIR`, or make the client with "
        "allow_newer_checkpoint=True."
    )
    following = dial(serve(turns(trained(9), trained(19))).url, allow_newer_checkpoint=True)
    assert [following.infer(OBSERVATION).checkpoint for _ in range(2)] == ["tiny/test/9", "tiny/test/19"]


def test_a_client_that_follows_connects_anew_to_a_newer_step_but_to_no_other_run(spec, serve, dial):
    server = serve()
    policy = dial(server.url, allow_newer_checkpoint=True)
    server.stop()
    newer = serve(port=server.port, of=checkpointed(spec, step=19))
    assert policy.infer(OBSERVATION, noise_seed=1).actions.shape == (4, 7)
    newer.stop()
    serve(port=server.port, of=checkpointed(spec, step=29, run="other"))
    with pytest.raises(SpecMismatch, match="policy.checkpoint.run is 'other', not 'test'"):
        policy.infer(OBSERVATION, noise_seed=1)


def checkpointed(spec, **changes):
    return replace(spec, policy=replace(spec.policy, checkpoint=replace(spec.policy.checkpoint, **changes)))


def test_questions_go_to_several_servers_in_turn(serve, dial):
    servers = [serve() for _ in range(3)]
    policy = dial(",".join(server.url for server in servers))
    for _ in range(6):
        policy.infer(OBSERVATION)
    assert [len(server.requests) for server in servers] == [2, 2, 2]
    assert policy.url == ",".join(server.url for server in servers)


def test_a_dead_server_is_left_out_and_taken_up_again(serve, dial):
    dead, waits = free_port(), []
    live = serve()
    policy = dial([live.url, f"{serve.scheme}://127.0.0.1:{dead}"], on_wait=waits.append)
    gone = f"{serve.scheme}://127.0.0.1:{dead}"
    assert waits == [f"Going on without the policy server at {gone} until it is back (connection refused)."]
    for _ in range(3):
        policy.infer(OBSERVATION)
    assert len(live.requests) == 3
    back = serve(port=dead)
    deadline = time.monotonic() + 10
    while not back.requests:
        assert time.monotonic() < deadline
        policy.infer(OBSERVATION)
        time.sleep(0.05)


def test_a_server_that_dies_leaves_its_questions_to_the_others(serve, dial):
    one, two = serve(), serve()
    policy = dial([one.url, two.url])
    one.stop()
    for seed in range(4):
        assert policy.infer(OBSERVATION, noise_seed=seed).actions.shape == (4, 7)
    assert len(two.requests) == 4


def test_a_server_that_comes_back_with_another_policy_is_left_out_while_another_one_answers(spec, serve, dial):
    live, other, waits = serve(), serve(), []
    policy = dial([live.url, other.url], on_wait=waits.append)
    other.stop()
    for seed in range(2):
        policy.infer(OBSERVATION, noise_seed=seed)
    replaced = serve(port=other.port, of=replace(spec, policy=replace(spec.policy, denoising_steps=3)))
    deadline = time.monotonic() + 10
    while not any("now serves another policy" in text or "serves another policy than" in text for text in waits):
        assert time.monotonic() < deadline
        assert policy.infer(OBSERVATION, noise_seed=5).actions.shape == (4, 7)
        time.sleep(0.05)
    assert not replaced.requests


def test_servers_of_different_policies_are_refused_by_field(spec, serve, dial):
    other = replace(spec, policy=replace(spec.policy, checkpoint=replace(spec.policy.checkpoint, step=19)))
    servers = [serve(), serve(of=other)]
    with pytest.raises(SpecMismatch) as caught:
        dial([server.url for server in servers])
    assert caught.value.message == (
        f"The policy server at {servers[1].url} serves another policy than {servers[0].url} (tiny/test/19, spec "
        f"{other.hash} instead of {spec.hash}): policy.checkpoint.step is 19, not 9. "
        "Every server of --server must serve the same checkpoint."
    )


def test_when_none_of_several_answers_each_reason_is_told(serve, dial):
    addresses = [f"{serve.scheme}://127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(ServerUnavailable) as caught:
        dial(addresses, connect_timeout=0.4)
    assert caught.value.message.startswith(
        f"No policy server answers at {addresses[0]}, {addresses[1]} (tried for 0.4 s;"
    )
    for address in addresses:
        assert f"{address}: connection refused" in caught.value.message


def test_transports_may_be_mixed(spec, start_server, dial):
    websocket, rpc = start_server(), FakeGrpcServer(spec)
    try:
        policy = dial(f"{websocket.url}, {rpc.url}")
        for _ in range(4):
            policy.infer(OBSERVATION)
        assert (len(websocket.requests), len(rpc.requests)) == (2, 2)
    finally:
        rpc.stop()


@pytest.fixture
def serve_grpc(spec):
    servers = []

    def start(answer=None, **options):
        servers.append(FakeGrpcServer(spec, answer, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def test_an_answer_of_a_process_whose_spec_is_unknown_is_dropped_and_asked_for_again(spec, serve_grpc, dial):
    names = repeat("checked"), chain(["stray"], repeat("checked"))
    server = serve_grpc(
        turns(lambda request: chunk_of(spec, request, 9.0), lambda request: chunk_of(spec, request, 1.0)),
        processes=names,
    )
    assert dial(server.url).infer(OBSERVATION).actions[0, 0] == 1.0  # safe without a seed: nobody saw the first one
    assert len(server.requests) == 2


def test_processes_behind_a_load_balancer_are_each_checked_once(serve_grpc, dial):
    turn = cycle(["one", "two", "three"])
    server = serve_grpc(processes=(turn, turn))
    policy = dial(server.url)
    for _ in range(6):
        policy.infer(OBSERVATION)
    assert len(server.requests) == 6
    assert len(server.headers) <= 6


def test_the_client_waits_for_a_grpc_server_that_compiles(serve_grpc, dial):
    waits = []
    server = serve_grpc(before=(ServerUnavailable("still compiling"),) * 2)
    assert dial(server.url, on_wait=waits.append).infer(OBSERVATION).actions.shape == (4, 7)
    assert len(waits) == 1
    assert "(it accepts connections but is not ready: still loading or compiling) …" in waits[0]


def test_a_key_that_grpc_refuses_is_not_tried_again(serve_grpc, dial):
    server = serve_grpc(before=(Unauthenticated("no"),) * 9, status=grpc.StatusCode.UNAUTHENTICATED)
    with pytest.raises(Unauthenticated, match=r"refused the API key \(UNAUTHENTICATED\).*--api-key-file"):
        dial(server.url)
    assert len(server.headers) == 1


def test_a_grpc_server_of_another_version_names_both(serve_grpc, dial):
    with pytest.raises(ProtocolViolation, match="speaks 'chunkwire/2', this client 'chunkwire/1'"):
        dial(serve_grpc(protocol="chunkwire/2").url)


def test_a_grpc_server_that_is_no_policy_server_is_told_apart(dial):
    server = grpc.server(ThreadPoolExecutor())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(ServerUnavailable, match=rf"^grpc://127.0.0.1:{port} speaks gRPC but is no policy server\."):
        dial(f"grpc://127.0.0.1:{port}")
    server.stop(None).wait(10)


def test_a_websocket_address_called_as_grpc_is_given_up_with_a_reason(start_server, dial):
    server = start_server()
    with pytest.raises(ServerUnavailable, match=r"No policy server answers at grpc://\S+ \(tried for 0.5 s; "):
        dial(f"grpc://127.0.0.1:{server.port}", connect_timeout=0.5)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (pb.InferResponse(id=9, error=pb.Error(code="x")), "answered request 9, but request 0 is awaited"),
        (pb.InferResponse(id=0), "neither actions nor an error"),
    ],
)
def test_a_grpc_reply_that_breaks_the_contract_is_refused(serve_grpc, dial, reply, message):
    with pytest.raises(ProtocolViolation, match=message):
        dial(serve_grpc(lambda request: reply).url).infer(OBSERVATION)


def test_a_request_beyond_the_servers_limit_is_said_so_and_not_repeated(serve, dial):
    server = serve(most_bytes=10_000)
    with pytest.raises(InvalidObservation, match=r"larger than the policy server at \S+ takes .*--max-message-bytes"):
        dial(server.url).infer(OBSERVATION, noise_seed=1)
    assert not server.requests


def test_a_reply_beyond_the_clients_limit_is_not_blamed_on_the_request(spec, serve, dial):
    def huge(request):
        message = chunk_of(spec, request)
        return {**message, "actions": np.zeros((70 * 2**20 // 28, 7), np.float32)}

    server = serve(turns(huge, lambda request: chunk_of(spec, request)))
    policy = dial(server.url)
    with pytest.raises(ProtocolViolation, match=r"^The reply of the policy server at \S+ is larger than this client"):
        policy.infer(OBSERVATION, noise_seed=1)
    assert policy.infer(OBSERVATION).actions.shape == (4, 7)
    assert len(server.requests) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_request_beyond_the_limit_spoils_none_that_follow(serve, dial, count):
    servers, waits = [serve(most_bytes=20_000) for _ in range(count)], []
    policy = dial([server.url for server in servers], on_wait=waits.append)
    for _ in range(2):
        with pytest.raises(InvalidObservation, match="larger than the policy server"):
            policy.infer({**OBSERVATION, "more": np.zeros(20_000, np.uint8)})
        for _ in range(count + 1):
            assert policy.infer(OBSERVATION).actions.shape == (4, 7)
    assert sum(len(server.requests) for server in servers) == 2 * (count + 1)
    assert not waits


def test_a_request_that_the_server_cannot_read_spoils_none_that_follow(spec, start_server, dial):
    def malformed(request):
        raise MalformedFrame("The state has no form.")

    server = start_server(turns(malformed, lambda request: chunk_of(spec, request)))
    policy = dial(server.url)
    with pytest.raises(CodecError, match="could not read the request: The state has no form"):
        policy.infer(OBSERVATION)
    assert policy.infer(OBSERVATION).actions.shape == (4, 7)
    assert len(server.headers) == 2


def test_a_file_of_trusted_certificates_that_is_none_is_refused(tmp_path, dial):
    path = tmp_path / "ca.pem"
    with pytest.raises(InvalidOption, match=r"--tls-ca \S+ cannot be read: No such file"):
        dial("wss://127.0.0.1:9", tls_ca=path)
    path.write_text("nothing")
    with pytest.raises(InvalidOption, match=r"--tls-ca \S+ holds no certificate in PEM form"):
        dial("grpcs://127.0.0.1:9", tls_ca=path)
