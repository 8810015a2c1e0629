"""The rules that every way of asking a policy obeys. A subclass says how to ask; its test names are the rules."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from policy_protocol import EpisodeMoment, InferRequest

from .conftest import LIBERO
from .running_server import GatedPolicy, RunningServer

__all__ = ["Compliance"]


def in_each_other(kind, depth):
    if not depth:
        return 1
    return [in_each_other(kind, depth - 1)] if kind is list else {"a": in_each_other(kind, depth - 1)}


class Compliance:
    """Subclasses give a fixture `dial`: server -> a line with

    - `server`, as it was given
    - `ask(request) -> InferReply`
    - `begin_all(requests)`, which asks all without waiting and returns what waits for the replies
    - `ask_fields(**fields) -> InferReply`, for fields that an `InferRequest` would not hold; `extra` is an unknown one
    """

    @pytest.fixture(scope="class")
    @classmethod
    def running(cls):
        server = RunningServer(LIBERO, max_batch=8)
        yield server
        server.stop()

    @pytest.fixture
    def line(self, dial, running):
        return dial(running)

    @pytest.fixture
    def start(self):
        """Servers of a test's own."""
        servers = []

        def started(policy=None, **options):
            servers.append(RunningServer(LIBERO, policy, **options))
            return servers[-1]

        yield started
        for server in servers:
            server.stop()

    def test_an_observation_is_answered_with_one_finite_chunk_and_real_times(self, line, observation):
        chunk = line.ask(InferRequest(3, observation)).chunk
        assert chunk.actions.shape == (20, 7)
        assert chunk.actions.dtype.kind == "f"
        assert np.isfinite(chunk.actions).all()
        assert chunk.timing["total_ms"] >= chunk.timing["infer_ms"] >= 0
        assert chunk.timing["queue_ms"] >= 0
        assert chunk.checkpoint == "pi05_libero/tiny/100"

    def test_the_same_seed_gives_the_same_actions_and_no_seed_gives_fresh_ones(self, line, observation):
        one, two = (line.ask(InferRequest(i, observation, noise_seed=5)).chunk.actions for i in range(2))
        np.testing.assert_array_equal(one, two)
        three, four = (line.ask(InferRequest(i, observation)).chunk.actions for i in range(2))
        assert np.abs(three - four).max() > 1e-3

    def test_a_batch_is_answered_with_one_chunk_a_row(self, line, observation):
        rows = {key: np.stack([value] * 3) for key, value in observation.items() if key != "prompt"}
        for prompt in ("all the same", ["a", "b", "c"]):
            chunk = line.ask(InferRequest(1, {**rows, "prompt": prompt}, noise_seed=2, batch=3)).chunk
            assert chunk.actions.shape == (3, 20, 7)
            assert np.abs(chunk.actions[0] - chunk.actions[1]).max() > 1e-3  # rows do not share their noise

    def test_a_row_with_a_seed_of_its_own_is_answered_as_if_it_were_alone(self, line, observation):
        seeds = (7, 7, 9)
        rows = {key: np.stack([value] * 3) for key, value in observation.items() if key != "prompt"}
        batch = line.ask(InferRequest(1, {**rows, "prompt": "x"}, noise_seed=seeds, batch=3)).chunk.actions
        for row, seed in enumerate(seeds):
            alone = line.ask(InferRequest(2, {**observation, "prompt": "x"}, noise_seed=seed)).chunk.actions
            np.testing.assert_allclose(batch[row], alone, atol=1e-5)

    def test_a_key_may_be_a_path_into_nested_maps(self, line, observation):
        nested = {"observation": {key.partition("/")[2]: value for key, value in observation.items() if "/" in key}}
        flat, deep = (
            line.ask(InferRequest(i, asked, noise_seed=1)).chunk.actions
            for i, asked in enumerate([observation, {**nested, "prompt": observation["prompt"]}])
        )
        np.testing.assert_array_equal(flat, deep)

    def test_every_reply_has_the_id_and_the_actions_of_its_request(self, line, observation):
        requests = [InferRequest(100 - i, observation, noise_seed=i) for i in range(12)]
        replies = line.begin_all(requests)()
        assert sorted(reply.id for reply in replies) == sorted(request.id for request in requests)
        by_id = {reply.id: reply.chunk.actions for reply in replies}
        for request in requests[::5]:
            np.testing.assert_array_equal(by_id[request.id], line.ask(request).chunk.actions)

    @pytest.mark.parametrize(
        ("change", "field", "message"),
        [
            ({"observation/image": None}, "observation/image", "lacks 'observation/image'"),
            ({"prompt": None}, "prompt", "lacks 'prompt'"),
            ({"observation/state": np.zeros(3)}, "observation/state", "must be 8 numbers"),
            ({"observation/state": np.full(8, np.nan)}, "observation/state", "NaN, infinity"),
            ({"observation/state": np.full(8, np.inf, np.float32)}, "observation/state", "NaN, infinity"),
            ({"observation/state": [[1], [1, 2]]}, "observation/state", "is no array"),
            ({"observation/state": "zeros"}, "observation/state", "must be 8 numbers"),
            ({"observation/image": np.zeros((4, 4), np.uint8)}, "observation/image", "must be an image"),
            ({"observation/image": np.zeros((4, 4, 3), np.int64)}, "observation/image", "must be uint8"),
            ({"prompt": 3}, "prompt", "must be a string"),
            ({"prompt": {"deep": "x"}}, "prompt", "must be a string"),
        ],
    )
    def test_a_wrong_observation_is_answered_by_code_and_field(self, line, observation, change, field, message):
        changed = {key: value for key, value in {**observation, **change}.items() if value is not None}
        reply = line.ask(InferRequest(7, changed))
        assert (reply.id, reply.error.code, reply.error.field) == (7, "invalid_argument", field)
        assert message in reply.error.message
        assert line.ask(InferRequest(8, observation)).chunk is not None

    @pytest.mark.parametrize(
        ("fields", "field", "message"),
        [
            (
                {"noise_seed": 2**63},
                "noise_seed",
                "noise_seed must be a whole number from 0, not '92",
            ),
            ({"batch": 0}, "batch", "batch must be a whole number from 1, not '0'."),
            ({"deadline_ms": 0.0}, "deadline_ms", "deadline_ms must be a positive number of milliseconds."),
            ({"deadline_ms": float("nan")}, "deadline_ms", "deadline_ms must be a positive number of milliseconds."),
            ({"extra": 1}, None, "The request has unknown fields: "),
        ],
    )
    def test_a_wrong_field_is_malformed_and_named(self, line, observation, fields, field, message):
        reply = line.ask_fields(id=7, observation=observation, **fields)
        assert (reply.id, reply.error.code, reply.error.field) == (7, "malformed", field)
        assert reply.error.message.startswith(message)
        assert line.ask(InferRequest(8, observation)).chunk is not None

    @pytest.mark.parametrize(
        ("request_", "field", "message"),
        [
            (InferRequest(1, {"a": np.zeros((2, 3))}, batch=3), "a", "a must have a leading axis of 3"),
            (InferRequest(1, {"a": {"b": np.float32(1)}}, batch=3), "a/b", "a/b must have a leading axis of 3"),
            (InferRequest(1, {"a": np.zeros((9, 3))}, batch=9), "batch", "batch is 9 but this server takes at most 8"),
        ],
    )
    def test_a_batch_that_does_not_fit_is_refused(self, line, request_, field, message):
        error = line.ask(request_).error
        assert (error.code, error.field) == ("invalid_argument", field)
        assert message in error.message

    @pytest.mark.parametrize("batch", [None, 8])
    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ({f"key{number}": "x" for number in range(1001)}, "has more than 1,000 entries."),
            ({"deep": {"list": [list(range(4000)), list(range(4100))]}}, "has more than 1,000 entries."),
            ({"maps": [[{"key": 1}] * 1000, *[[{}] * 1000] * 6]}, "has more than 1,000 entries."),
            ({"lists": in_each_other(list, 9)}, "has maps and lists in each other more than 8 deep."),
            ({"maps": in_each_other(dict, 9)}, "has maps and lists in each other more than 8 deep."),
            ({"k" * 201: "x"}, "has a key of more than 200 characters."),
            ({"list": [{"k" * 201: "x"}]}, "has a key of more than 200 characters."),
        ],
    )
    def test_more_structure_than_any_robot_has_is_refused(self, line, observation, extra, message, batch):
        reply = line.ask(InferRequest(7, {**observation, **extra}, batch=batch))
        assert (reply.id, reply.error.code) == (7, "invalid_argument")
        assert message in reply.error.message

    def test_lists_with_an_item_for_each_row_are_counted_by_the_row(self, line, observation):
        rows = {key: np.stack([value] * 8) for key, value in observation.items() if key != "prompt"}
        more = {f"prompt{number}": ["x"] * 8 for number in range(400)}
        assert line.ask(InferRequest(1, {**rows, **more, "prompt": ["x"] * 8}, batch=8)).chunk is not None

    def test_one_bad_request_among_many_costs_nobody_else(self, line, observation):
        bad = {**observation, "observation/state": np.zeros(3)}
        replies = line.begin_all([InferRequest(i, bad if i == 2 else observation) for i in range(5)])()
        assert {reply.id: reply.error.code if reply.error else "ok" for reply in replies} == {
            0: "ok",
            1: "ok",
            2: "invalid_argument",
            3: "ok",
            4: "ok",
        }

    def test_the_moment_of_an_episode_changes_nothing(self, line, observation):
        moments = (None, EpisodeMoment("PushCube-v1", 3, 8))
        one, two = (line.ask(InferRequest(0, observation, noise_seed=1, episode=it)).chunk.actions for it in moments)
        np.testing.assert_array_equal(one, two)

    def test_a_request_whose_deadline_passed_while_it_waited_is_dropped(self, dial, start, observation):
        policy = GatedPolicy(LIBERO)
        line = dial(start(policy))
        asked = line.begin_all([InferRequest(0, observation)])
        assert policy.entered.wait(10)
        late = line.begin_all([InferRequest(1, observation, deadline_ms=50), InferRequest(2, observation)])
        wait_until(lambda: line.server.waiting == 2)
        time.sleep(0.1)
        policy.gate.set()
        replies = {reply.id: reply for reply in itertools.chain(asked(), late())}
        assert replies[1].error.code == "deadline_exceeded"
        assert replies[1].error.message == "The deadline passed while the request was waiting."
        assert replies[0].chunk is not None
        assert replies[2].chunk is not None

    def test_a_full_server_says_at_once_when_to_ask_again(self, dial, start, observation):
        policy = GatedPolicy(LIBERO)
        line = dial(start(policy, max_waiting=4, max_batch=4))
        crowds = [line.begin_all([InferRequest(i, observation) for i in ids]) for ids in ((0, 1), (2, 3))]
        assert policy.entered.wait(10)
        wait_until(lambda: line.server.unanswered == 4)
        error = line.ask(InferRequest(9, observation)).error
        assert error.code == "overloaded"
        assert error.retry_after_ms > 0
        policy.gate.set()
        assert {reply.id for asked in crowds for reply in asked() if reply.chunk} == {0, 1, 2, 3}

    def test_a_draining_server_finishes_what_it_took_and_takes_nothing_new(self, dial, start, observation):
        policy = GatedPolicy(LIBERO)
        line = dial(start(policy))
        asked = line.begin_all([InferRequest(0, observation), InferRequest(1, observation)])
        assert policy.entered.wait(10)
        wait_until(lambda: line.server.unanswered == 2)
        drained = line.server.begin(line.server.service.drain())
        wait_until(lambda: line.server.service.draining)
        reply = line.ask(InferRequest(2, observation))
        assert (reply.id, reply.error.code) == (2, "draining")
        assert reply.error.message == "The server is shutting down and takes no new requests."
        assert not drained.done()
        policy.gate.set()
        assert {reply.id for reply in asked() if reply.chunk} == {0, 1}
        drained.result(10)


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
