"""gRPC beyond the common rules: the real process, health, reflection, limits, statuses, keys, TLS."""

from __future__ import annotations

import asyncio
import functools
import queue
import subprocess
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from policy_protocol import InferReply, InferRequest, PolicySpec, pack, unpack
from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import DeadlineExceeded, ServerUnavailable, Unauthenticated
from policy_protocol.policy_pb2_grpc import PolicyServiceStub
from policy_protocol.protobuf_messages import ERROR_METADATA, reply_from_proto, request_to_proto
from policy_server.options import OptionsInvalid, ServerOptions
from policy_server.policies.dummy import DummyPolicy, zeros_policy
from policy_server.session import Session
from sim_client.policy_client import PolicyClient

from .certificates import Certificate
from .compliance import wait_until
from .conftest import LIBERO, SERVE
from .running_server import GatedPolicy, RunningServer
from .talking import dial

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
INFER = "/chunkwire.policy.v1.PolicyService/Infer"


@pytest.fixture
def start():
    servers = []

    def started(policy=None, **options):
        servers.append(RunningServer(LIBERO, policy, **options))
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


@pytest.fixture
def channel_to():
    channels = []

    def channel(address):
        channels.append(grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]))
        return channels[-1]

    yield channel
    for channel in channels:
        channel.close()


def error_of(call):
    """(status, what the metadata says, the status' text) of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    blobs = [value for key, value in caught.value.trailing_metadata() or () if key == ERROR_METADATA]
    return caught.value.code(), pb.Error.FromString(blobs[0]) if blobs else None, caught.value.details()


def test_the_real_process_answers_both_transports_with_the_same_actions(server, observation, channel_to):
    stub = PolicyServiceStub(channel_to(server.grpc_url.removeprefix("grpc://")))
    answer = stub.GetSpec(pb.GetSpecRequest(), timeout=30)
    assert (answer.protocol, PolicySpec.from_json(answer.spec_json)) == ("chunkwire/1", LIBERO)
    request = InferRequest(1, observation, noise_seed=3)
    chunk = reply_from_proto(stub.Infer(request_to_proto(request), timeout=60)).chunk
    with dial(server) as connection:
        connection.send(pack(request.to_wire()))
        other = InferReply.from_wire(unpack(connection.recv(timeout=60)).value).chunk
    np.testing.assert_array_equal(chunk.actions, other.actions)
    assert chunk.timing["infer_ms"] > 1


def test_a_client_that_knows_only_reflection_gets_a_chunk(server, observation, channel_to):
    """What grpcurl does: ask for the schema, build the messages from it, call."""
    channel = channel_to(server.grpc_url.removeprefix("grpc://"))
    ask = reflection_pb2.ServerReflectionRequest
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([ask(list_services=""), ask(file_containing_symbol="chunkwire.policy.v1.PolicyService")]), timeout=30
    )
    listed, described = call
    names = {service.name for service in listed.list_services_response.service}
    assert {"chunkwire.policy.v1.PolicyService", "grpc.health.v1.Health"} <= names
    pool = descriptor_pool.DescriptorPool()
    for blob in described.file_descriptor_response.file_descriptor_proto:
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(blob))
    method = pool.FindServiceByName("chunkwire.policy.v1.PolicyService").methods_by_name["Infer"]
    request = message_factory.GetMessageClass(method.input_type)(id=5, noise_seed=1)
    dtypes = pool.FindEnumTypeByName("chunkwire.policy.v1.DType").values_by_name
    for key, value in observation.items():
        entry = request.observation.entries[key]
        if isinstance(value, str):
            entry.text = value
        else:
            entry.tensor.dtype = dtypes[f"DTYPE_{value.dtype.name.upper()}"].number
            entry.tensor.shape.extend(value.shape)
            entry.tensor.data = value.tobytes()
    infer = channel.unary_unary(
        INFER,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    reply = infer(request, timeout=60)
    assert (reply.id, list(reply.chunk.actions.shape)) == (5, [20, 7])
    assert np.isfinite(np.frombuffer(reply.chunk.actions.data, "<f8")).all()


def test_health_says_serving_only_between_ready_and_draining(start, observation, channel_to):
    policy = GatedPolicy(LIBERO)
    server = start(policy, ready=False)
    channel = channel_to(server.grpc_address)
    health, stub = health_pb2_grpc.HealthStub(channel), PolicyServiceStub(channel)

    def status(name=""):
        return health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status

    watched = iter(health.Watch(health_pb2.HealthCheckRequest(service="chunkwire.policy.v1.PolicyService"), timeout=30))
    assert status() == next(watched).status == NOT_SERVING
    request = request_to_proto(InferRequest(0, observation))
    for call in (lambda: stub.GetSpec(pb.GetSpecRequest(), timeout=10), lambda: stub.Infer(request, timeout=10)):
        code, error, text = error_of(call)
        assert (code, error.code) == (grpc.StatusCode.UNAVAILABLE, "unavailable")
        assert text == "The server is still compiling. Ask again, or wait until grpc.health.v1 says SERVING."
    server.set_ready()
    assert next(watched).status == SERVING
    assert status() == status("chunkwire.policy.v1.PolicyService") == SERVING
    answer = stub.Infer.future(request, timeout=30)
    assert policy.entered.wait(10)
    drained = server.begin(server.service.drain())
    assert next(watched).status == NOT_SERVING
    assert status() == NOT_SERVING
    code, error, _ = error_of(lambda: stub.Infer(request, timeout=10))
    assert (code, error.code) == (grpc.StatusCode.UNAVAILABLE, "draining")
    policy.gate.set()
    assert answer.result(10).HasField("chunk")
    drained.result(10)


LARGE = np.zeros((700, 700, 3), np.uint8)


@pytest.fixture
def slow_reading(monkeypatch):
    """Requests are being read until `gate` is set, and must not be read on the event loop."""
    gate, entered, admit = threading.Event(), threading.Event(), Session.admit

    def held(session, *arguments):
        assert not threading.current_thread().name.endswith("(run_forever)"), "read on the event loop"
        entered.set()
        assert gate.wait(30)
        return admit(session, *arguments)

    monkeypatch.setattr(Session, "admit", held)
    return gate, entered


class SlowTransforms(DummyPolicy):
    """Prepares a row when `gate` is set."""

    def __init__(self):
        super().__init__(LIBERO, lambda rows, noise: noise)
        self.gate, self.prepared = threading.Event(), []

    def transform(self, observation):
        self.prepared.append(observation)
        assert self.gate.wait(30)
        return super().transform(observation)


@pytest.mark.parametrize("scheme", ["ws", "grpc"])
def test_the_rows_of_a_client_that_left_count_as_long_as_the_server_prepares_them(start, observation, scheme):
    policy = SlowTransforms()
    server = start(policy)
    rows = {key: value if isinstance(value, str) else np.stack([value] * 4) for key, value in observation.items()}
    url = server.url if scheme == "ws" else f"grpc://{server.grpc_address}"
    with PolicyClient(url) as client, pytest.raises(DeadlineExceeded):
        client.infer(rows, batch=4, deadline_ms=2000)
    wait_until(lambda: policy.prepared)
    time.sleep(0.2)
    assert server.unanswered == 4
    policy.gate.set()
    wait_until(lambda: server.unanswered == 0)
    assert len(policy.prepared) == 1


@pytest.mark.parametrize("scheme", ["ws", "grpc"])
def test_a_large_request_that_is_being_read_when_draining_begins_is_answered(start, observation, slow_reading, scheme):
    gate, entered = slow_reading
    server = start()
    url = server.url if scheme == "ws" else f"grpc://{server.grpc_address}"
    with PolicyClient(url) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.infer, {**observation, "observation/image": LARGE})
        assert entered.wait(10)
        drained = server.begin(server.service.drain())
        wait_until(lambda: server.service.draining)
        time.sleep(0.1)
        assert not drained.done()
        gate.set()
        assert answer.result(10).actions.shape == (20, 7)
        drained.result(10)


def test_draining_does_not_wait_for_what_comes_after_it(start):
    """A stream that goes on asking is refused each time; the server must end all the same."""
    server = start()
    service = server.service

    async def drain():
        taken, never = asyncio.Event(), asyncio.Event()
        service.begin(taken.wait())
        drained = asyncio.ensure_future(service.drain())
        await service.wait_draining()
        refusal = service.begin(never.wait())
        taken.set()
        try:
            await asyncio.wait_for(drained, 5)
        finally:
            refusal.cancel()

    server.run(drain(), timeout=10)


def test_images_are_let_go_once_they_are_prepared(start, observation):
    """Whoever reads slowly, or waits behind others, must not keep megabytes in the server."""
    policy = GatedPolicy(LIBERO)
    server = start(policy)

    async def watch():
        service, image = server.service, LARGE.copy()
        kept, read = weakref.ref(image), InferRequest(0, {**observation, "observation/image": image})
        record = service.record("test", "test", image.nbytes)
        question = await service.admit(record, functools.partial(Session(LIBERO).admit, read))
        del image, read
        answering = service.begin(service.answer(question, record))
        assert await asyncio.to_thread(policy.entered.wait, 10)
        gone = kept() is None
        policy.gate.set()
        await answering
        return gone

    assert server.run(watch(), timeout=30)


def test_statuses_carry_the_same_codes_and_fields(start, observation, channel_to):
    stub = PolicyServiceStub(channel_to(start().grpc_address))
    bad = request_to_proto(InferRequest(0, {**observation, "observation/state": np.zeros(3)}))
    code, error, text = error_of(lambda: stub.Infer(bad, timeout=10))
    assert (code, error.code, error.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "invalid_argument",
        "observation/state",
    )
    assert text == error.message
    torn = request_to_proto(InferRequest(0, observation))
    torn.observation.entries["observation/image"].tensor.data += b"x"
    code, error, text = error_of(lambda: stub.Infer(torn, timeout=10))
    assert (code, error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed", "observation/image")
    assert text == "An array of shape (96, 96, 3) and dtype uint8 holds 27648 bytes, not 27649."


def test_a_batch_of_no_rows_is_told_so_and_not_of_its_entries(start, observation, channel_to):
    stub = PolicyServiceStub(channel_to(start().grpc_address))
    message = request_to_proto(InferRequest(0, observation))
    message.batch = 0
    _, error, text = error_of(lambda: stub.Infer(message, timeout=10))
    assert (error.code, error.field) == ("malformed", "batch")
    assert text == "batch must be a whole number from 1, not '0'."


def test_a_policy_that_fails_is_internal_and_tells_no_secrets(start, observation, channel_to):
    policy = GatedPolicy(LIBERO)
    policy.launch = lambda *_: 1 / 0
    stub = PolicyServiceStub(channel_to(start(policy).grpc_address))
    code, error, text = error_of(lambda: stub.Infer(request_to_proto(InferRequest(0, observation)), timeout=10))
    assert (code, error.code) == (grpc.StatusCode.INTERNAL, "internal")
    assert text == "The policy failed on this request; the server's log has the reason."


def test_garbage_is_malformed_and_harms_nobody(start, observation, channel_to):
    channel = channel_to(start().grpc_address)
    code, error, text = error_of(lambda: channel.unary_unary(INFER)(b"\xff\xff garbage", timeout=10))
    assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed")
    assert text == "The message is no InferRequest of chunkwire.policy.v1."
    stream = channel.stream_stream(INFER + "Stream")
    code, error, _ = error_of(lambda: list(stream(iter([b"\xff\xff garbage"]), timeout=10)))
    assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed")
    answer = PolicyServiceStub(channel).Infer(request_to_proto(InferRequest(0, observation)), timeout=10)
    assert answer.HasField("chunk")


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_garbage_among_good_requests_ends_the_stream_and_nothing_else(start, observation, channel_to, caplog, cut):
    server = start()
    channel = channel_to(server.grpc_address)
    good = [request_to_proto(InferRequest(i, observation)).SerializeToString() for i in range(12)]
    stream = channel.stream_stream("/chunkwire.policy.v1.PolicyService/InferStream")
    code, error, _ = error_of(lambda: list(stream(iter([*good[:cut], b"\xff", *good[cut:]]), timeout=30)))
    assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed")
    wait_until(lambda: server.unanswered == 0)
    assert "Traceback" not in caplog.text


def test_a_message_beyond_the_limit_is_refused_with_the_limit_in_the_text(start, observation, channel_to):
    channel = channel_to(start(max_message_bytes=100_000).grpc_address)
    large = pb.InferRequest(observation=pb.Observation(entries={"x": pb.Value(text="x" * 100_001)}))
    code, _, text = error_of(lambda: PolicyServiceStub(channel).Infer(large, timeout=10))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "100000" in text
    answer = PolicyServiceStub(channel).Infer(request_to_proto(InferRequest(0, observation)), timeout=10)
    assert answer.HasField("chunk")


def test_calls_beyond_the_limit_are_refused(start, observation, channel_to):
    policy = GatedPolicy(LIBERO)
    server = start(policy, max_connections=2)
    stub = PolicyServiceStub(channel_to(server.grpc_address))
    request = request_to_proto(InferRequest(0, observation))
    waiting = [stub.Infer.future(request, timeout=30) for _ in range(2)]
    wait_until(lambda: server.unanswered == 2)
    code, _, _ = error_of(lambda: stub.Infer(request, timeout=10))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    policy.gate.set()
    assert all(call.result(10).HasField("chunk") for call in waiting)


def test_the_deadline_of_the_call_is_the_deadline_of_the_request(start, observation, channel_to):
    policy = GatedPolicy(LIBERO)
    server = start(policy)
    stub = PolicyServiceStub(channel_to(server.grpc_address))
    request = request_to_proto(InferRequest(0, observation))
    first = stub.Infer.future(request, timeout=30)
    assert policy.entered.wait(10)
    code, _, _ = error_of(lambda: stub.Infer(request, timeout=0.2))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: server.unanswered == 1)  # nobody waits for it, so it does not wait either
    policy.gate.set()
    assert first.result(10).HasField("chunk")


def test_a_client_that_leaves_a_stream_takes_its_requests_with_it(start, observation, channel_to):
    policy = GatedPolicy(LIBERO)
    server = start(policy)
    messages = queue.Queue()
    for i in range(4):
        messages.put(request_to_proto(InferRequest(i, observation)))
    call = PolicyServiceStub(channel_to(server.grpc_address)).InferStream(iter(messages.get, None), timeout=30)
    wait_until(lambda: server.unanswered == 4)
    call.cancel()
    messages.put(None)
    wait_until(lambda: server.unanswered == 0)
    policy.gate.set()


def test_no_more_is_read_from_a_stream_than_may_be_unanswered(start, observation, channel_to):
    policy = GatedPolicy(LIBERO)
    server = start(policy, max_unanswered=3)
    messages = queue.Queue()
    for i in [*range(8), None]:
        messages.put(i if i is None else request_to_proto(InferRequest(i, observation)))
    call = PolicyServiceStub(channel_to(server.grpc_address)).InferStream(iter(messages.get, None), timeout=30)
    wait_until(lambda: server.unanswered == 3)
    time.sleep(0.2)
    assert server.unanswered == 3
    policy.gate.set()
    assert sorted(reply.id for reply in call) == list(range(8))


def test_a_stream_that_reads_nothing_is_cut_off(start, caplog):
    """The replies, of 4 MB each, are more than the sockets and gRPC's windows hold."""
    long_chunks = replace(LIBERO, policy=replace(LIBERO.policy, action_horizon=75_000))
    server = start(zeros_policy(long_chunks), read_timeout_s=0.5)
    observation = {
        "observation/image": np.zeros((4, 4, 3), np.uint8),
        "observation/wrist_image": np.zeros((4, 4, 3), np.uint8),
        "observation/state": np.zeros(8),
        "prompt": "x",
    }
    with grpc.insecure_channel(server.grpc_address, [("grpc.max_receive_message_length", -1)]) as channel:
        messages = queue.Queue()
        for i in range(24):
            messages.put(request_to_proto(InferRequest(i, observation)))
        call = PolicyServiceStub(channel).InferStream(iter(messages.get, None), timeout=60)
        wait_until(lambda: server.unanswered > 0)
        wait_until(lambda: server.unanswered == 0)
        server.run(server.service.drain(), timeout=10)  # nothing of it is in flight for ever
        messages.put(None)
        code, error, text = error_of(lambda: list(call))
    assert (code, error.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
    assert text == "The client read nothing for 0.5 s."
    assert "read nothing for 0.5 s and was cut off" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_stream_that_asks_nothing_is_hung_up_on(start, channel_to):
    server = start(idle_connection_s=0.3)
    messages = queue.Queue()
    call = PolicyServiceStub(channel_to(server.grpc_address)).InferStream(iter(messages.get, None), timeout=30)
    code, error, text = error_of(lambda: next(call))
    messages.put(None)
    assert (code, error.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
    assert text == "Nothing was asked for 0.3 s (--idle-connection)."


def test_an_idle_stream_does_not_keep_the_server_from_closing(start, observation, channel_to):
    server = RunningServer(LIBERO)
    messages = queue.Queue()
    messages.put(request_to_proto(InferRequest(0, observation)))
    call = PolicyServiceStub(channel_to(server.grpc_address)).InferStream(iter(messages.get, None), timeout=30)
    assert next(call).HasField("chunk")
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 3
    code, error, _ = error_of(lambda: next(call))
    messages.put(None)
    assert (code, error.code) == (grpc.StatusCode.UNAVAILABLE, "draining")


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ((), "This server needs an API key. Send the header 'Authorization: Api-Key KEY'"),
        ((("authorization", "Api-Key wrong"),), "The API key is wrong."),
        ((("authorization", "Basic one"),), "The Authorization header must be 'Api-Key KEY' or 'Bearer KEY'."),
    ],
)
def test_without_a_right_key_every_call_but_a_health_check_is_refused(
    start, observation, channel_to, tmp_path, metadata, text
):
    (tmp_path / "keys").write_text("one\ntwo\n")
    channel = channel_to(start(api_key_file=tmp_path / "keys").grpc_address)
    stub, request = PolicyServiceStub(channel), request_to_proto(InferRequest(0, observation))
    reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    health = health_pb2_grpc.HealthStub(channel)
    calls = (
        lambda: stub.GetSpec(pb.GetSpecRequest(), timeout=10, metadata=metadata),
        lambda: stub.Infer(request, timeout=10, metadata=metadata),
        lambda: list(stub.InferStream(iter([request]), timeout=10, metadata=metadata)),
        lambda: list(reflected(iter([reflection_pb2.ServerReflectionRequest()]), timeout=10, metadata=metadata)),
        lambda: next(health.Watch(health_pb2.HealthCheckRequest(), timeout=10, metadata=metadata)),
    )
    for call in calls:
        code, error, said = error_of(call)
        assert (code, error.code) == (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
        assert said.startswith(text)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == SERVING


@pytest.mark.parametrize("header", ["Api-Key one", "Bearer two"])
def test_a_right_key_lets_in(start, observation, channel_to, tmp_path, header):
    (tmp_path / "keys").write_text("one\ntwo\n")
    stub = PolicyServiceStub(channel_to(start(api_key_file=tmp_path / "keys").grpc_address))
    metadata = (("authorization", header),)
    request = request_to_proto(InferRequest(0, observation))
    assert stub.Infer(request, timeout=10, metadata=metadata).HasField("chunk")
    assert len(list(stub.InferStream(iter([request] * 3), timeout=10, metadata=metadata))) == 3


def test_a_port_that_is_taken_is_said_so(server, spec_file, environment):
    port = server.grpc_url.rpartition(":")[2]
    arguments = ["--policy", "zeros", "--spec", spec_file, "--port", "0", "--grpc-port", port]
    done = subprocess.run([SERVE, *arguments], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert (
        f"Port {port} on 127.0.0.1 is taken. Stop what uses it, or pass --grpc-port (0 takes a free one)."
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_grpc_listens_one_above_the_websocket_or_where_it_is_told_or_not_at_all():
    assert ServerOptions().grpc_listen_port == 8001
    assert ServerOptions(port=0).grpc_listen_port == 0
    assert ServerOptions(port=9000, grpc_port=7000).grpc_listen_port == 7000
    assert ServerOptions(port=65535, grpc=False).port == 65535
    with pytest.raises(OptionsInvalid, match="no port above --port 65535 for gRPC. Pass --grpc-port or --no-grpc."):
        ServerOptions(port=65535)


def test_without_grpc_there_is_one_port_only(launch):
    with launch("--no-grpc", "--batch-sizes", "1") as process:
        process.wait_ready()
        assert "grpc" not in process.log


def test_grpc_speaks_tls_to_those_who_trust_its_certificate(start, observation, tmp_path):
    certificate = Certificate(tmp_path)
    (tmp_path / "keys").write_text("one")
    server = start(tls_cert=certificate.certificate, tls_key=certificate.key, api_key_file=tmp_path / "keys")
    url = f"grpcs://{server.grpc_address}"
    with PolicyClient(url, api_key="one", tls_ca=certificate.certificate, connect_timeout=10) as client:
        assert client.spec == LIBERO
        assert client.infer(observation).actions.shape == (20, 7)
    with pytest.raises(Unauthenticated, match=r"refused the API key \(UNAUTHENTICATED\)"):
        PolicyClient(url, tls_ca=certificate.certificate, connect_timeout=10)
    with pytest.raises(ServerUnavailable, match="is not trusted: .*CERTIFICATE_VERIFY_FAILED.* Pass --tls-ca"):
        PolicyClient(url, api_key="one", connect_timeout=10)
    with pytest.raises(ServerUnavailable, match="No policy server answers"):
        PolicyClient(f"grpc://{server.grpc_address}", api_key="one", connect_timeout=0.5)


def test_an_expired_certificate_is_refused_by_the_client(start, tmp_path):
    expired = Certificate(tmp_path, days=-1)
    server = start(tls_cert=expired.certificate, tls_key=expired.key)
    with pytest.raises(ServerUnavailable, match="is not trusted: .*certificate has expired"):
        PolicyClient(f"grpcs://{server.grpc_address}", tls_ca=expired.certificate, connect_timeout=10)


def test_our_client_gets_the_same_over_both_transports_of_the_real_process(server, observation):
    with PolicyClient(server.url) as websocket, PolicyClient(server.grpc_url) as rpc:
        one, two = (client.infer(observation, noise_seed=4) for client in (websocket, rpc))
    np.testing.assert_array_equal(one.actions, two.actions)
    assert one.checkpoint == two.checkpoint == "pi05_libero/tiny/100"
