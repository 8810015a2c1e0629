"""The same request gives the same actions, whatever else the server computes at the time."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from websockets.sync.client import connect

from policy_protocol.codec import pack, unpack
from policy_protocol.messages import InferReply, InferRequest
from policy_server.session import Session
from training.pi05.load import load_policy
from training.pi05.policy import noise_from_seed

from .conftest import CHECKPOINT, LIBERO, TOKENIZER

TOLERANCE = 1e-5
"""Batch shapes are compiled each on its own, and a row's place in the batch decides which lanes of a CPU add it up: the
same row may differ by rounding."""


def observations(count):
    draw = np.random.default_rng(0)
    return [
        {
            "observation/image": draw.integers(0, 256, (64, 64, 3), np.uint8),
            "observation/wrist_image": draw.integers(0, 256, (64, 64, 3), np.uint8),
            "observation/state": draw.uniform(-0.5, 0.5, 8),
            "prompt": "pick up the red cube",
        }
        for _ in range(count)
    ]


def stacked(rows):
    return {key: [row[key] for row in rows] if key == "prompt" else np.stack([r[key] for r in rows]) for key in rows[0]}


def test_permuting_a_batch_permutes_the_answers():
    policy = load_policy(CHECKPOINT, spec=LIBERO, tokenizer=str(TOKENIZER))
    rows = [policy.transform(observation) for observation in observations(4)]
    noise = np.stack([noise_from_seed(seed, policy.noise_shape) for seed in range(4)])
    order = [2, 0, 3, 1]
    straight = policy.launch(rows, noise).actions()
    permuted = policy.launch([rows[index] for index in order], noise[order]).actions()
    np.testing.assert_allclose(permuted, straight[order], atol=TOLERANCE)
    assert np.abs(straight[0] - straight[1]).max() > 1e-3


def programs(server):
    return float(re.search(r"^chunkwire_compiled_programs (\S+)$", server.page("/metrics")[1], re.MULTILINE)[1])


def ask(connection, request):
    connection.send(pack(request.to_wire()))
    reply = InferReply.from_wire(unpack(connection.recv(timeout=120)).value)
    assert reply.error is None, reply.error
    return reply.chunk.actions


@pytest.fixture
def dialled(server):
    with connect(server.url, max_size=None, compression=None) as connection:
        connection.recv(timeout=30)
        yield connection


def test_eight_clients_at_random_batch_sizes_get_what_each_gets_alone(server, dialled):
    """And nothing is compiled for them: every shape was ready before the first request."""
    pool, session = observations(6), Session(LIBERO)
    before = programs(server)
    failures = []

    def client(number):
        draw = np.random.default_rng(number)
        with connect(server.url, max_size=None, compression=None) as connection:
            connection.recv(timeout=30)
            for identifier in range(4):
                chosen = [pool[index] for index in draw.integers(0, len(pool), draw.integers(1, 7))]
                request = InferRequest(identifier, stacked(chosen), noise_seed=number * 100, batch=len(chosen))
                got.append((chosen, session.admit(request), ask(connection, request)))

    got = []

    def guarded(number):
        try:
            client(number)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert not failures
    assert len(got) == 32
    for identifier, (chosen, question, actions) in enumerate(got[::4]):
        row = len(chosen) - 1
        alone = ask(dialled, InferRequest(identifier, chosen[row], noise_seed=question.row_seed(row)))
        np.testing.assert_allclose(actions[row], alone, atol=TOLERANCE)
    assert programs(server) == before
