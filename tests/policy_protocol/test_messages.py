"""Requests, replies, errors and noise seeds."""

from __future__ import annotations

import numpy as np
import pytest

from policy_protocol import ActionChunk, EpisodeMoment, InferReply, InferRequest, is_envelope, noise_seed, pack, unpack
from policy_protocol.errors import (
    CodecError,
    InvalidObservation,
    Overloaded,
    ProtocolViolation,
    RemoteError,
    did_you_mean,
    error_from_wire,
)


def test_a_request_survives_the_wire():
    request = InferRequest(3, {"prompt": "x"}, 7, 2, 50.0, EpisodeMoment("PushCube-v1", 5, 16))
    assert InferRequest.from_wire(unpack(pack(request.to_wire())).value) == request


def test_a_batch_may_have_a_seed_and_a_moment_for_each_row():
    moments = EpisodeMoment("PushCube-v1", 5, 16), EpisodeMoment("PushCube-v1", 6, 0)
    request = InferRequest(3, {"prompt": "x"}, (2**63 - 1, 0), 2, episode=moments)
    assert InferRequest.from_wire(unpack(pack(request.to_wire())).value) == request


def test_fields_that_are_none_are_not_sent():
    assert set(InferRequest(1, {}).to_wire()) == {"id", "observation"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": -1}, "id must be a whole number from 0"),
        ({"id": "a"}, "id must be a whole number"),
        ({"observation": 3}, "observation must be a map"),
        ({"noise_seed": 2**63}, "noise_seed must be a whole number from 0"),
        ({"noise_seed": [1, -1], "batch": 2}, "noise_seed must be a whole number from 0, not '-1'"),
        ({"noise_seed": [1, 2]}, "noise_seed is a list of 2 without a batch. A list has one entry for each row."),
        ({"noise_seed": [], "batch": 2}, "noise_seed is a list of 0 for a batch of 2."),
        ({"batch": 0}, "batch must be a whole number from 1"),
        ({"deadline_ms": 0}, "deadline_ms must be a positive number"),
        ({"deadline_ms": float("nan")}, "deadline_ms must be a positive number"),
        ({"episode": {"env_id": "x", "seed": 1}}, "episode.step is missing"),
        ({"episode": 1}, "episode must be a map"),
        ({"episode": [1], "batch": 1}, "episode must be a map"),
        ({"episode": [{}, {}], "batch": 3}, "episode is a list of 2 for a batch of 3."),
        ({"extra": 1}, "unknown fields: extra"),
    ],
)
def test_a_wrong_request_is_refused_by_field(change, message):
    with pytest.raises(CodecError, match=message):
        InferRequest.from_wire({"id": 1, "observation": {}, **change})


def test_a_bare_observation_is_not_an_envelope():
    assert not is_envelope({"observation/image": 0, "prompt": "x"})
    assert is_envelope({"id": 0, "observation": {}})


def test_a_reply_survives_the_wire():
    reply = InferReply.from_wire(
        unpack(pack(InferReply(4, ActionChunk(np.ones((2, 3)), {"infer_ms": 1.0})).to_wire())).value
    )
    assert reply.id == 4
    np.testing.assert_array_equal(reply.chunk.actions, np.ones((2, 3)))
    assert reply.chunk.timing == {"infer_ms": 1.0}


@pytest.mark.parametrize("wire", [3, {}, {"id": "x"}, {"id": 1}, {"id": 1, "actions": np.zeros(3, np.int64)}])
def test_what_is_not_a_reply_is_a_violation(wire):
    with pytest.raises(ProtocolViolation):
        InferReply.from_wire(wire)


def test_an_error_comes_back_as_its_own_kind():
    error = InferReply.from_wire(InferReply(1, error=InvalidObservation("no image", field="image")).to_wire()).error
    assert isinstance(error, InvalidObservation)
    assert (error.message, error.field) == ("no image", "image")
    assert isinstance(error_from_wire(Overloaded("later").to_wire()), Overloaded)


def test_an_unknown_error_keeps_its_text():
    error = error_from_wire({"code": "on_fire", "message": "the rack burns"})
    assert isinstance(error, RemoteError)
    assert error.message == "the rack burns (code 'on_fire')"


def test_noise_seeds_are_pinned_so_that_old_results_can_be_repeated():
    assert noise_seed(0, 0, 0) == 759540517790923586
    assert noise_seed(1, 2, 3) == 3751671686878481423
    seeds = {noise_seed(run, episode, chunk) for run in range(5) for episode in range(20) for chunk in range(20)}
    assert len(seeds) == 5 * 20 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_did_you_mean_offers_the_closest_or_the_choices():
    assert did_you_mean("stackcub-v1", ["StackCube-v1", "PushCube-v1"]) == " Did you mean 'StackCube-v1'?"
    assert did_you_mean("zzz", ["b", "a"]) == " Choose one of: a, b."
    assert did_you_mean("zzz", map(str, range(50))) == " There are 50 names to choose from, none of them close."
