"""What /metrics counts, read back as Prometheus reads it."""

from __future__ import annotations

import time
import timeit
import urllib.request

import pytest
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from policy_protocol import pack, unpack
from policy_protocol.steps import StepsRequest
from policy_server.metrics import Metrics

from .rehearsed_policy import DEVICE_LOST
from .talking import ask, dial, eventually, rehearsed, samples


@pytest.fixture(scope="module")
def server(rehearse):
    with rehearse("--batch-sizes", "1,4") as process:
        yield process.wait_ready()


@pytest.fixture
def metrics(server):
    """The growth of a sample since the test began."""
    before = samples(server)

    def grown(*key):
        return samples(server)[key] - before.get(key, 0)

    return grown


def test_requests_are_counted_by_transport_and_code(server, metrics):
    with dial(server) as connection:
        for number in range(3):
            ask(connection, rehearsed(number))
        ask(connection, rehearsed(3, fault=DEVICE_LOST))
    assert metrics("requests_total", "ok", "websocket") == 3
    assert metrics("requests_total", "internal", "websocket") == 1
    assert metrics("request_seconds_count", "websocket") == 4


def test_openpi_clients_are_counted_too(server, metrics, observation):
    client = WebsocketClientPolicy("127.0.0.1", server.port)
    client.infer({**observation, "observation/state": rehearsed().observation["observation/state"]})
    with pytest.raises(RuntimeError, match="invalid_argument"):
        client.infer({})
    assert metrics("requests_total", "ok", "websocket") == 1
    assert metrics("requests_total", "invalid_argument", "websocket") == 1


def test_batches_padding_and_the_device_are_counted_by_row_and_second(server, metrics):
    with dial(server) as connection:
        ask(connection, rehearsed(0, batch=3, seconds=0.2))
    assert metrics("batch_rows_sum") == 3
    assert metrics("queue_seconds_count") == 3
    assert metrics("device_busy_seconds_total", "0") == pytest.approx(0.2 * metrics("batch_rows_count"), abs=0.1)
    assert samples(server)[("device_busy_share",)] > 0


def test_bytes_in_and_out_are_the_frames(server, metrics):
    with dial(server) as connection:
        greeting = metrics("sent_bytes_total", "websocket")
        ask(connection, rehearsed(side=64))
    assert metrics("received_bytes_total", "websocket") == pytest.approx(2 * 64 * 64 * 3, abs=1000)
    assert metrics("sent_bytes_total", "websocket") - greeting == pytest.approx(20 * 7 * 8, abs=500)


def test_open_connections_are_counted_until_they_close(server, metrics):
    with dial(server), dial(server):
        assert metrics("connections", "websocket") == 2
    eventually(lambda: metrics("connections", "websocket") == 0)


def test_the_page_names_the_checkpoint_and_is_of_prometheus_type(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as page:
        assert page.headers["Content-Type"].startswith("text/plain; version=")
    page = samples(server)
    assert page[("checkpoint_info", "100", "pi05_libero", "tiny")] == 1
    assert page[("compiled_programs",)] == 0  # this policy has nothing to compile
    assert page[("process_resident_memory_bytes",)] > 10_000_000


def test_the_pace_of_the_devices_is_that_of_their_batches():
    metrics = Metrics()
    assert metrics.seconds_for(10) is None
    metrics.batch(8, 8, 1.0)
    metrics.batch(2, 4, 1.0)
    assert metrics.seconds_for(10) == pytest.approx(2.0)
    metrics.use_replicas(2)
    assert metrics.seconds_for(10) == pytest.approx(1.0)
    page = metrics.page().decode().splitlines()
    assert "chunkwire_padding_rows_total 2.0" in page
    assert 'chunkwire_batch_seconds_count{replica="0"} 2.0' in page


def test_two_servers_of_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.request("grpc", "ok", 0.1)
    counted = 'chunkwire_requests_total{code="ok",transport="grpc"} 1.0'
    assert counted in one.page().decode()
    assert counted not in other.page().decode()


def test_batches_of_more_than_a_minute_ago_are_forgotten(monkeypatch):
    metrics, now = Metrics(), 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(100):
        metrics.batch(1, 1, 0.1)
        now += 1
    assert metrics.seconds_for(10) == pytest.approx(1.0)
    for _ in range(61):
        metrics.batch(4, 4, 0.1)
        now += 1
    assert metrics.seconds_for(10) == pytest.approx(0.25)
    now += 61
    assert metrics.seconds_for(10) is None  # nobody asked for the share of a server that was idle since


def test_what_a_refused_request_is_told_takes_no_longer_after_many_batches():
    few, many = Metrics(), Metrics()
    for metrics, batches in ((few, 10), (many, 20_000)):
        for _ in range(batches):
            metrics.batch(8, 8, 0.001)

    def fastest(metrics):
        return min(timeit.repeat(lambda: metrics.seconds_for(8), number=100, repeat=20))

    assert fastest(many) < 20 * fastest(few)  # it was a thousand times as long


def test_questions_about_steps_are_counted_but_not_as_times_to_actions(server, metrics):
    with dial(server) as connection:
        ask(connection, rehearsed(0))
        connection.send(pack(StepsRequest(1, load=9).to_wire()))
        assert unpack(connection.recv(timeout=10)).value["error"]["code"] == "step_not_served"
    assert metrics("requests_total", "step_not_served", "websocket") == 1
    assert metrics("request_seconds_count", "websocket") == 1
