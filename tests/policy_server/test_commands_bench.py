"""`serve bench` against real servers."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest

from .conftest import SERVE, ServerProcess


def run_bench(environment, *arguments):
    command = [SERVE, "bench", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="session")
def zeros(environment, spec_file, tmp_path_factory):
    """`serve --policy zeros` behind a key, and the file that holds it; its queue takes three rows."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("# for the tests\nsecret\n")
    arguments = ["--policy", "zeros", "--spec", spec_file, "--port", 0, "--api-key-file", keys]
    arguments += ["--max-waiting", 3, "--max-batch", 3]
    server = ServerProcess(arguments, environment)
    try:
        server.wait_ready()
        yield server, keys
    finally:
        server.stop()


@pytest.mark.parametrize("transport", ["websocket", "grpc"])
def test_it_measures_a_server_over_either_transport(zeros, environment, transport):
    server, keys = zeros
    url = server.url if transport == "websocket" else server.grpc_url
    done = run_bench(environment, url, "--requests", 40, "--clients", 2, "--api-key-file", keys, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["answered"], facts["errors"], facts["clients"]) == (40, {}, 2)
    assert facts["checkpoint"] == "pi05_libero/tiny/100"
    times = facts["milliseconds"]
    assert times["round_trip"]["p50"] <= times["round_trip"]["p95"] <= times["round_trip"]["p99"]
    assert times["round_trip"]["p50"] > times["beside_device"]["p50"] > 0
    assert facts["requests_per_second"] == pytest.approx(40 / facts["seconds"], rel=0.01)


def test_the_table_names_throughput_quantiles_and_errors(zeros, environment):
    server, keys = zeros
    done = run_bench(environment, server.url, "--seconds", 0.5, "--clients", 1, "--api-key-file", keys)
    assert done.returncode == 0, done.stderr
    assert "requests/s" in done.stdout
    for word in ("p50", "p95", "p99", "round trip", "queue", "device", "errors: none"):
        assert word in done.stdout


def test_rows_of_a_batch_are_counted(zeros, environment):
    server, keys = zeros
    arguments = ("--requests", 5, "--clients", 1, "--batch", 3, "--api-key-file", keys, "--json")
    facts = json.loads(run_bench(environment, server.url, *arguments).stdout)
    assert facts["rows_per_second"] == pytest.approx(3 * facts["requests_per_second"], rel=0.01)


def test_errors_are_counted_by_their_code(zeros, environment):
    """Eight clients and room for three rows."""
    server, keys = zeros
    arguments = ("--requests", 60, "--clients", 8, "--api-key-file", keys, "--json")
    facts = json.loads(run_bench(environment, server.url, *arguments).stdout)
    assert set(facts["errors"]) == {"overloaded"}
    assert facts["answered"] + facts["errors"]["overloaded"] == 60


def test_questions_that_the_server_refuses_end_it_with_the_servers_words(zeros, environment):
    server, keys = zeros
    done = run_bench(environment, server.url, "--batch", 4, "--clients", 2, "--api-key-file", keys)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("serve: batch is 4 but this server takes at most 3 rows")
    assert "Traceback" not in done.stderr


def test_a_missing_key_is_said_so(zeros, environment):
    server, _ = zeros
    done = run_bench(environment, server.url, "--requests", 1, "--connect-timeout", 10)
    assert done.returncode == 1
    assert f"serve: No policy server answers at {server.url}: server rejected" in done.stderr
    assert "HTTP 401" in done.stderr


def test_no_server_is_said_so(environment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        done = run_bench(environment, url, "--connect-timeout", 2)
    assert done.returncode == 1
    assert f"serve: No policy server answers at {url}: " in done.stderr
    assert "Start one: serve --checkpoint DIR" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://127.0.0.1:8000", "ws://"])
def test_an_address_of_another_kind_is_said_so(environment, url):
    done = run_bench(environment, url)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"serve: {url!r} is not the address of a policy server. Pass ws://HOST:PORT, wss://…, grpc://… or grpcs://…."
    )
