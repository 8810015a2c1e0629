"""How the tests talk to a server process: one connection, requests, and what they say."""

from __future__ import annotations

import contextlib
import time

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from policy_protocol import InferReply, InferRequest, pack, unpack

from .rehearsed_policy import state


@contextlib.contextmanager
def dial(server, **options):
    """A greeted connection."""
    with connect(server.url, compression=None, max_size=None, **options) as connection:
        connection.recv(timeout=60)
        yield connection


def send(connection, request):
    connection.send(pack(request.to_wire()))


def receive(connection, timeout=60):
    return InferReply.from_wire(unpack(connection.recv(timeout=timeout)).value)


def ask(connection, request, timeout=60):
    send(connection, request)
    return receive(connection, timeout)


def occupy(server, connection, request):
    """Send a request to the rehearsed policy and wait until the device works on it."""
    before = server.log.count("acting on")
    send(connection, request)
    eventually(lambda: server.log.count("acting on") > before)


def arrives(server, send_it, transport="websocket"):
    """Do what sends requests and wait until the server has read something of it."""
    received = ("received_bytes_total", transport)
    before = samples(server).get(received, 0)
    send_it()
    eventually(lambda: samples(server).get(received, 0) > before)


def settled(value, pause=0.3, timeout=20):
    """Wait until a number is above 0 and rises no more."""
    deadline, last = time.monotonic() + timeout, 0
    while not (now := value()) or now != last:
        assert time.monotonic() < deadline, "it went on rising"
        last = now
        time.sleep(pause)


def rehearsed(number=0, side=8, deadline_ms=None, episode=None, batch=None, **wish):
    """A request to the rehearsed policy, with images of `side` pixels."""
    image = np.zeros((side, side, 3), np.uint8)
    observation = {
        "observation/image": image,
        "observation/wrist_image": image,
        "observation/state": state(**wish),
        "prompt": "pick up the red cube",
    }
    if batch is not None:
        observation = {k: v if isinstance(v, str) else np.stack([v] * batch) for k, v in observation.items()}
    return InferRequest(number, observation, None, batch, deadline_ms, episode)


def samples(server):
    """Sorted label values after the name -> value of everything on /metrics."""
    return {
        (sample.name.removeprefix("chunkwire_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(server.page("/metrics")[1])
        for sample in family.samples
    }


def eventually(condition, timeout=20):
    """Wait until it holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)
