"""A reply names one checkpoint, and all of its rows are computed by that one, whatever is loaded meanwhile."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy_protocol import InferRequest
from policy_server.policies.dummy import DummyPolicy
from sim_client import PolicyClient

from .conftest import LIBERO
from .running_server import RunningServer
from .talking import ask as ask_once
from .talking import dial, rehearsed


class MovingPolicy(DummyPolicy):
    """Its actions are the number of its step; before each batch of `loads` it loads another one."""

    def __init__(self, loads):
        super().__init__(LIBERO, lambda rows, noise: np.zeros(noise.shape) + self.spec.policy.checkpoint.step)
        self.batches, self._loads = [], loads

    def launch(self, rows, noise, pad_to=None, replica=0):
        if (step := self._loads.get(len(self.batches))) is not None:
            checkpoint = dataclasses.replace(self.spec.policy.checkpoint, step=step)
            self.spec = dataclasses.replace(
                self.spec, policy=dataclasses.replace(self.spec.policy, checkpoint=checkpoint)
            )
        self.batches.append(noise)
        return super().launch(rows, noise, pad_to, replica)


@pytest.fixture
def ask():
    servers = []

    def asked(loads, batch=10, **options):
        policy = MovingPolicy(loads)
        servers.append(RunningServer(LIBERO, policy))
        with PolicyClient(servers[-1].url, allow_newer_checkpoint=True, reply_timeout=20) as client:
            request: InferRequest = rehearsed(batch=batch)
            return client.infer(request.observation, batch=batch, **options), policy

    yield asked
    for server in servers:
        server.stop()


@pytest.mark.parametrize(
    ("loads", "served", "batches"),
    [
        ({}, 100, 3),  # 4, 4 and 2 rows
        ({1: 200}, 200, 4),  # the first four again
        ({2: 50}, 50, 5),  # older or newer, whichever is served last: the first eight again
        ({1: 200, 3: 300}, 300, 6),  # and what was newer for a while, too
    ],
)
def test_rows_of_a_step_that_was_replaced_are_computed_again(ask, loads, served, batches):
    chunk, policy = ask(loads)
    assert chunk.checkpoint == f"pi05_libero/tiny/{served}"
    assert (chunk.actions == served).all()
    assert len(policy.batches) == batches


def test_a_row_that_is_computed_again_starts_from_the_same_noise(ask):
    _, policy = ask({1: 200}, noise_seed=7)
    np.testing.assert_array_equal(policy.batches[3], policy.batches[0])


def test_a_request_without_a_batch_is_computed_once(ask):
    chunk, policy = ask({0: 200}, batch=1)
    assert chunk.checkpoint == "pi05_libero/tiny/200"
    assert len(policy.batches) == 1


def test_where_steps_are_loaded_faster_than_a_batch_takes_the_request_is_refused_after_three_times():
    policy = MovingPolicy({number: 100 + number for number in range(1, 1000)})
    server = RunningServer(LIBERO, policy)
    with dial(server) as connection:
        error = ask_once(connection, rehearsed(batch=10), timeout=20).error
    server.stop()
    assert error.code == "overloaded"
    assert error.message == (
        "The server loaded another checkpoint each of the 3 times that it computed this request's 10 rows, and a reply "
        "is of one. Ask again when it loads less often, or for fewer rows."
    )
    assert len(policy.batches) < 30  # and not a thousand
