"""What a server survives over gRPC, each against the real process: afterwards it answers as before."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import pytest

from policy_protocol import policy_pb2 as pb
from policy_protocol.policy_pb2_grpc import PolicyServiceStub
from policy_protocol.protobuf_messages import ERROR_METADATA, request_to_proto

from .talking import eventually, rehearsed, samples

KILLED = """
import sys, grpc
from policy_protocol import policy_pb2 as pb
from policy_protocol.policy_pb2_grpc import PolicyServiceStub
stub = PolicyServiceStub(grpc.insecure_channel(sys.argv[1]))
request = pb.InferRequest.FromString(sys.stdin.buffer.read(int(sys.argv[2])))
calls = [stub.Infer.future(request) for _ in range(2)]
replies = stub.InferStream(iter([request] * 2))
print("asked", flush=True)
for reply in replies:
    pass
"""


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def target(server):
    return server.grpc_url.partition("://")[2]


def dial(server):
    """A connection of its own."""
    return grpc.insecure_channel(target(server), [("grpc.use_local_subchannel_pool", 1)])


def ask(server, **wish):
    with dial(server) as channel:
        return PolicyServiceStub(channel).Infer(request_to_proto(rehearsed(**wish)), timeout=30).chunk


def code_of(error):
    """The code of the server's Error, else the status's name."""
    blobs = [value for key, value in error.trailing_metadata() or () if key == ERROR_METADATA]
    return pb.Error.FromString(blobs[0]).code if blobs else error.code().name


@pytest.fixture
def serving(rehearse):
    def start(*arguments):
        return rehearse("--batch-sizes", "1,4", "--grpc", *arguments)

    return start


def in_threads(count, work):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_a_client_killed_mid_request_costs_nobody_else_anything(serving):
    request = request_to_proto(rehearsed(seconds=3)).SerializeToString()
    with serving() as process:
        server = process.wait_ready()
        command = [sys.executable, "-c", KILLED, target(server), str(len(request))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            client.stdin.write(request)
            client.stdin.flush()
            assert client.stdout.readline() == b"asked\n"
            eventually(lambda: samples(server).get(("rows_waiting",), 0) == 3)  # the fourth is computed
            client.kill()
        eventually(lambda: samples(server).get(("requests_total", "cancelled", "grpc"), 0) == 4)
        begun = time.monotonic()
        assert ask(server, mark=7).actions.data
        assert time.monotonic() - begun < 9  # behind 3 s that are computed, not 9 s that nobody wants
        eventually(lambda: samples(server)[("connections", "grpc")] == 0)
        assert samples(server)[("rows_waiting",)] == 0


def test_a_flood_of_200_clients_gets_answers_or_clear_refusals(serving):
    with serving("--max-connections", 60, "--max-waiting", 16, "--max-batch", 4) as process:
        server, outcomes, gate = process.wait_ready(), [], threading.Barrier(200)

        def client(number):
            request = request_to_proto(rehearsed(number, seconds=0.02))
            with dial(server) as channel:
                stub = PolicyServiceStub(channel)
                gate.wait(60)
                for _ in range(3):
                    try:
                        stub.Infer(request, timeout=60, wait_for_ready=True)
                        outcomes.append("answered")
                    except grpc.RpcError as error:
                        outcomes.append(code_of(error))

        for thread in in_threads(200, client):
            thread.join(120)
        counts = {outcome: outcomes.count(outcome) for outcome in set(outcomes)}
        print(f"flood: {counts}")
        assert set(counts) <= {"answered", "overloaded", "RESOURCE_EXHAUSTED"}
        assert counts["answered"] >= 16
        assert sum(counts.values()) == 600
        assert ask(server).actions.data


def test_a_flood_on_one_stream_is_answered_in_full_or_refused_by_id(serving):
    with serving("--max-waiting", 16, "--max-batch", 4, "--max-unanswered", 64) as process:
        server = process.wait_ready()
        with dial(server) as other, dial(server) as channel:
            keeping = PolicyServiceStub(other).InferStream(iter(queue.Queue().get, None))  # somebody else is connected
            requests = (request_to_proto(rehearsed(number, seconds=0.01)) for number in range(500))
            replies = list(PolicyServiceStub(channel).InferStream(requests, timeout=60))
            codes = {reply.error.code for reply in replies if reply.HasField("error")}
            answered = sum(reply.HasField("chunk") for reply in replies)
            keeping.cancel()
        print(f"one stream: {answered} of 500 answered")
        assert sorted(reply.id for reply in replies) == list(range(500))
        assert codes <= {"overloaded"}
        assert answered >= 8  # half of --max-waiting
        assert ask(server).actions.data


def test_sigterm_under_load_loses_nothing_that_was_in_flight(serving):
    with serving() as process:
        server, told = process.wait_ready(), threading.Event()
        lost, ends, answered = [], [], []

        def by_call(number):
            with dial(server) as channel:
                stub = PolicyServiceStub(channel)
                while True:
                    before = not told.is_set()
                    try:
                        stub.Infer(request_to_proto(rehearsed(number, seconds=0.05)), timeout=30)
                        answered.append(number)
                    except grpc.RpcError as error:
                        if before:
                            lost.append((number, error))
                        ends.append(code_of(error))
                        return

        def by_stream(number):
            asked = queue.Queue()
            with dial(server) as channel:
                replies = PolicyServiceStub(channel).InferStream(iter(asked.get, None), timeout=60)
                while True:
                    before = not told.is_set()
                    asked.put(request_to_proto(rehearsed(number, seconds=0.05)))
                    try:
                        reply = next(replies)
                    except grpc.RpcError as error:
                        if before:
                            lost.append((number, error))
                        ends.append(code_of(error))
                        break
                    if reply.HasField("error"):
                        ends.append(reply.error.code)
                        break
                    answered.append(number)
                asked.put(None)

        threads = in_threads(6, by_call) + in_threads(6, by_stream)
        eventually(lambda: len(answered) > 24)
        told.set()
        eventually(lambda: samples(server).get(("rows_waiting",), 0) > 0)
        time.sleep(0.3)  # what was asked before is on the server by now
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert server.process.wait(30) == 0
    assert lost == []
    assert len(ends) == 12
    assert set(ends) <= {"draining", "UNAVAILABLE", "CANCELLED"}  # gRPC's own, for what came after the last answer


def test_garbage_and_half_a_message_leave_the_port_answering(serving):
    with serving() as process:
        server = process.wait_ready()
        host, _, port = target(server).partition(":")
        for garbage in (b"\x16\x03\x01" * 100, PREFACE + b"\xff" * 5000, b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=10) as raw:
                raw.sendall(garbage)
                raw.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    while raw.recv(4096):
                        pass
        with dial(server) as channel:
            infer = channel.unary_unary("/chunkwire.policy.v1.PolicyService/Infer")
            whole = request_to_proto(rehearsed()).SerializeToString()
            with pytest.raises(grpc.RpcError) as error:
                infer(whole[: len(whole) // 2], timeout=10)
            assert code_of(error.value) == "malformed"
        assert ask(server).actions.data
