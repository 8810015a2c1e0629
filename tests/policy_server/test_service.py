"""Limits, deadlines, idleness and the log, against the real process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from policy_protocol import EpisodeMoment, InferRequest

from .conftest import REHEARSED
from .rehearsed_policy import DEVICE_LOST
from .talking import ask, dial, eventually, occupy, receive, rehearsed, samples, send


@pytest.fixture(scope="module")
def server(rehearse):
    limits = ["--max-waiting", 12, "--max-batch", 4, "--max-connections", 3, "--max-message-bytes", 200_000]
    with rehearse("--batch-sizes", "1,4", *limits, "--max-unanswered", 6) as process:
        yield process.wait_ready()


def occupied(server, connection, seconds):
    """Keep the device busy with request 0."""
    occupy(server, connection, rehearsed(0, seconds=seconds))


def test_a_full_server_answers_overloaded_at_once_and_says_when_to_ask_again(server):
    with dial(server) as one, dial(server) as other, dial(server) as third:
        occupied(server, one, seconds=1.5)
        for connection, batches in ((one, (2, 3)), (other, (4, 2))):
            for number, batch in enumerate(batches, 1):
                send(connection, rehearsed(number, batch=batch))
        eventually(lambda: samples(server)[("rows_waiting",)] == 11)
        error = ask(third, rehearsed(9)).error
        assert samples(server)[("rows_waiting",)] == 11  # the device is still busy
        assert error.code == "overloaded"
        assert 10 <= error.retry_after_ms <= 60_000
        assert error.message == (
            "12 rows are waiting already and this server takes 12 (--max-waiting). "
            f"Ask again in {error.retry_after_ms} ms."
        )
        assert all(receive(one).chunk is not None for _ in range(3))
        assert all(receive(other).chunk is not None for _ in range(2))
        assert ask(third, rehearsed(11, batch=2)).chunk is not None


def test_while_others_are_connected_one_client_may_have_half_of_the_rows(server):
    with dial(server) as greedy:
        with dial(server) as other:
            occupied(server, greedy, seconds=1.5)
            for number in (1, 2):
                send(greedy, rehearsed(number, batch=2))
            error = ask(greedy, rehearsed(3, batch=2)).error
            assert error.code == "overloaded"
            assert error.message == (
                "5 rows of this client are waiting already. Others are connected too, so it may have 6: half of what "
                f"this server takes (--max-waiting 12). Ask again in {error.retry_after_ms} ms."
            )
            assert ask(other, rehearsed(4, batch=4)).chunk is not None
            assert all(receive(greedy).chunk is not None for _ in range(3))
        eventually(lambda: samples(server)[("connections", "websocket")] == 1)
        occupied(server, greedy, seconds=0.5)
        for number in (1, 2, 3):
            send(greedy, rehearsed(number, batch=3))
        assert all(receive(greedy).chunk is not None for _ in range(4))  # alone it may have them all


def test_a_request_of_too_many_rows_is_refused_and_the_connection_survives(server):
    with dial(server) as connection:
        error = ask(connection, rehearsed(1, batch=5)).error
        assert (error.code, error.field) == ("invalid_argument", "batch")
        assert error.message == "batch is 5 but this server takes at most 4 rows in one request."
        assert ask(connection, rehearsed(2)).chunk is not None


def test_a_request_of_too_many_bytes_closes_the_connection_with_1009(server):
    with dial(server) as connection:
        assert ask(connection, rehearsed(side=100)).chunk is not None
        with pytest.raises(ConnectionClosed) as closed:
            ask(connection, rehearsed(side=300))
    assert closed.value.rcvd.code == 1009


def test_one_connection_too_many_is_told_so_at_the_handshake(server):
    with dial(server), dial(server):
        with dial(server):
            with pytest.raises(InvalidStatus) as refused, connect(server.url):
                pass
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"] == "1"
            text = "overloaded: 3 clients are connected already (--max-connections). Try again later.\n"
            assert refused.value.response.body.decode() == text
            assert server.page("/healthz") == (200, "OK\n")
        eventually(lambda: samples(server)[("connections", "websocket")] == 2)
        with dial(server) as connection:
            assert ask(connection, rehearsed()).chunk is not None


def test_no_more_is_read_from_a_client_with_too_many_unanswered_requests(server):
    with dial(server) as one, dial(server) as other:
        occupied(server, one, seconds=1.5)
        for number in range(1, 8):
            send(one, rehearsed(number))
        eventually(lambda: samples(server)[("rows_waiting",)] == 5)
        assert ask(other, rehearsed(20, batch=2)).chunk is not None  # 6 of the 12 rows that the server takes are one's
        replies = [receive(one) for _ in range(8)]
    assert {reply.id for reply in replies} == set(range(8))
    assert all(reply.chunk is not None for reply in replies)


def test_a_deadline_counts_from_arrival_and_defaults_to_the_servers(rehearse):
    deadlines = ["--default-deadline", 0.2, "--max-deadline", 0.5]
    with rehearse("--batch-sizes", "1", *deadlines) as process:
        server = process.wait_ready()
        with dial(server) as connection:
            occupied(server, connection, seconds=1)
            send(connection, rehearsed(1))
            send(connection, rehearsed(2, deadline_ms=60_000))  # cut to half a second
            replies = {reply.id: reply for reply in (receive(connection) for _ in range(3))}
        assert replies[0].chunk is not None
        for number in (1, 2):
            assert replies[number].error.code == "deadline_exceeded"
            assert replies[number].error.message == "The deadline passed while the request was waiting."


def test_a_client_that_asks_nothing_is_hung_up_on_and_one_that_waits_is_not(rehearse):
    with rehearse("--idle-connection", 0.5) as process:
        server = process.wait_ready()
        with dial(server) as silent, dial(server) as waiting:
            send(waiting, rehearsed(seconds=1.5))
            with pytest.raises(ConnectionClosed) as closed:
                silent.recv(timeout=10)
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "idle for 0.5 s (--idle-connection)")
            assert receive(waiting).chunk is not None
            with pytest.raises(ConnectionClosed):
                waiting.recv(timeout=10)


def test_a_server_that_nobody_asks_ends_itself_with_status_0(rehearse):
    with rehearse("--idle-timeout", 2 / 60) as process:
        server = process.wait_ready()
        with dial(server) as connection:
            assert ask(connection, rehearsed(seconds=2.5)).chunk is not None  # nobody is idle meanwhile
            answered = time.monotonic()
            assert server.process.wait(30) == 0
            assert time.monotonic() - answered > 1.5
        eventually(lambda: "draining" in server.log)
        assert "nobody asked anything for 2 s: this server ends itself (--idle-timeout)" in server.log


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--max-batch", "9", "--max-waiting", "8"],
            "--max-batch 9 can never be served: only 8 rows may be unanswered.",
        ),
        (["--max-connections", "0"], "Invalid value for '--max-connections'"),
        (["--log-format", "xml"], "Invalid value for '--log-format'"),
    ],
)
def test_limits_that_cannot_be_are_said_so(environment, spec_file, flags, message):
    command = [sys.executable, REHEARSED, "--policy", "rehearsed", "--spec", spec_file, *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def lines_of(server, number):
    """The log's lines about requests, once there are so many."""
    eventually(lambda: len([line for line in server.lines if '"request"' in line or " request " in line]) >= number)
    return [line for line in server.lines if '"request"' in line or " request " in line]


def test_each_request_is_one_line_of_json_with_its_times_and_its_moment(rehearse):
    with rehearse("--log-format", "json") as process:
        server = process.wait_ready()
        with dial(server) as connection:
            ask(connection, rehearsed(1, episode=EpisodeMoment("PushCube-v1", 5, 16), seconds=0.05))
            ask(connection, rehearsed(2, batch=3, fault=DEVICE_LOST))
            ask(connection, InferRequest(3, {}))
            client = "{}:{}".format(*connection.local_address)
        fine, failed, wrong = map(json.loads, lines_of(server, 3))
        everything = [json.loads(line) for line in server.lines]
    assert {"time", "level", "message"} <= set.intersection(*map(set, everything))
    assert fine["level"] == "debug"
    assert (fine["client"], fine["transport"], fine["code"], fine["rows"]) == (client, "websocket", "ok", 1)
    assert (fine["env_id"], fine["seed"], fine["step"]) == ("PushCube-v1", 5, 16)
    assert fine["queue_ms"] >= 0
    assert 50 <= fine["infer_ms"] <= fine["total_ms"]
    assert (failed["level"], failed["code"], failed["rows"]) == ("warning", "internal", 3)
    assert (wrong["level"], wrong["code"]) == ("info", "invalid_argument")
    assert wrong["reason"].startswith("The observation lacks 'observation/image'")
    assert len({fine["id"], failed["id"], wrong["id"]}) == 3
    traceback = next(line["traceback"] for line in everything if "traceback" in line)
    assert "RuntimeError: device lost" in traceback


def test_the_plain_log_has_the_same_facts_in_words(server):
    before = len(lines_of(server, 0))
    with dial(server) as connection:
        ask(connection, rehearsed(1, episode=EpisodeMoment("two words\nI forged", 5, 16)))
    line = lines_of(server, before + 1)[-1]
    fact = r"id=\w+-\d+ client=127\.0\.0\.1:\d+ transport=websocket code=ok rows=1"
    times = r"queue_ms=[\d.]+ infer_ms=[\d.]+ total_ms=[\d.]+"
    assert re.fullmatch(
        rf'\d\d:\d\d:\d\d D request {fact} {times} env_id="two words\\nI forged" seed=5 step=16\n', line
    )
