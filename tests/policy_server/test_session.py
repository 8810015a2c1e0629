"""The protocol without I/O: which frames are understood, and how they are answered."""

from __future__ import annotations

import msgpack
import msgpack_numpy
import numpy as np
import pytest

from policy_protocol import PROTOCOL, ActionChunk, InferReply, InferRequest, PolicySpec, pack, unpack
from policy_protocol.errors import CodecError, InvalidObservation
from policy_protocol.steps import StepsReply, StepsRequest
from policy_server import Session

from .conftest import LIBERO

CHUNK = ActionChunk(np.zeros((20, 7)), {"infer_ms": 5.0, "queue_ms": 1.0})


@pytest.fixture
def session():
    return Session(LIBERO, max_batch=8)


def test_the_greeting_holds_the_protocol_and_the_whole_spec(session):
    greeting = unpack(session.greeting()).value
    assert greeting["protocol"] == PROTOCOL
    assert PolicySpec.from_wire(greeting["policy_spec"]) == LIBERO


def test_a_bare_observation_is_answered_as_openpi_answers(session):
    first = unpack(session.answer(session.understand(pack({"prompt": "x"})), CHUNK)).value
    assert set(first) == {"actions", "policy_timing", "server_timing"}
    assert first["policy_timing"] == {"infer_ms": 5.0}
    assert set(first["server_timing"]) == {"infer_ms"}
    second = unpack(session.answer(session.understand(pack({"prompt": "x"})), CHUNK)).value
    assert set(second["server_timing"]) == {"infer_ms", "prev_total_ms"}


def test_an_envelope_is_answered_with_its_id_and_real_times(session):
    question = session.understand(pack(InferRequest(17, {"prompt": "x"}, noise_seed=3).to_wire()))
    assert (question.envelope_id, question.noise_seed) == (17, 3)
    reply = InferReply.from_wire(unpack(session.answer(question, CHUNK)).value)
    assert reply.id == 17
    assert reply.chunk.timing["infer_ms"] == 5.0
    assert reply.chunk.timing["total_ms"] >= 0


def test_the_answer_uses_the_arrays_of_the_request(session):
    question = session.understand(msgpack.packb({"state": np.zeros(8)}, default=msgpack_numpy.encode))
    answer = msgpack.unpackb(session.answer(question, CHUNK), object_hook=msgpack_numpy.decode)
    assert answer["actions"].shape == (20, 7)


def test_a_batch_is_taken_apart_by_rows(session):
    observation = {"state": np.arange(6.0).reshape(3, 2), "prompt": "all the same"}
    question = session.understand(pack(InferRequest(1, observation, noise_seed=5, batch=3).to_wire()))
    assert [row["state"].tolist() for row in question.observations] == [[0, 1], [2, 3], [4, 5]]
    assert {row["prompt"] for row in question.observations} == {"all the same"}
    assert len({question.row_seed(row) for row in range(3)}) == 3


def test_a_batch_is_taken_apart_inside_nested_maps_too(session):
    observation = {"images": {"cam_high": np.arange(6.0).reshape(3, 2)}, "prompt": "all the same"}
    question = session.understand(pack(InferRequest(1, observation, batch=3).to_wire()))
    assert [row["images"]["cam_high"].tolist() for row in question.observations] == [[0, 1], [2, 3], [4, 5]]


def test_a_batch_may_have_a_prompt_for_each_row(session):
    question = session.understand(pack(InferRequest(1, {"prompt": ["a", "b"]}, batch=2).to_wire()))
    assert [row["prompt"] for row in question.observations] == ["a", "b"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (InferRequest(1, {"state": np.zeros((2, 3))}, batch=3), "state must have a leading axis of 3"),
        (InferRequest(1, {"state": np.float32(1)}, batch=3), "state must have a leading axis of 3"),
        (InferRequest(1, {"state": [[1], [1, 2]]}, batch=3), "state must have a leading axis of 3"),
        (InferRequest(1, {"images": {"top": np.zeros((2, 3))}}, batch=3), "images/top must have a leading axis of 3"),
        (InferRequest(1, {"state": np.zeros((9, 3))}, batch=9), "batch is 9 but this server takes at most 8"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(session, request_, message):
    with pytest.raises(InvalidObservation, match=message):
        session.understand(pack(request_.to_wire()))


def test_a_large_batch_of_more_entries_than_any_robots_is_refused_though_each_row_has_few():
    request = InferRequest(1, {str(number): "x" for number in range(49)}, batch=1024)
    with pytest.raises(InvalidObservation) as error:
        Session(LIBERO).understand(pack(request.to_wire()))
    assert error.value.message == (
        "The 1024 observations have more than 50,000 entries in all. Send the policy's own, or fewer rows."
    )
    assert error.value.request_id == 1


def test_a_batch_of_too_many_rows_is_refused_before_the_seed_of_each_is_read(session):
    message = {"id": 1, "observation": {}, "batch": 9, "noise_seed": ["wrong"] * 9}
    with pytest.raises(InvalidObservation, match="batch is 9 but this server takes at most 8 rows in one request"):
        session.understand(pack(message))


@pytest.mark.parametrize(
    ("frame", "message"),
    [("text", "not text"), (b"\xc1", "not valid msgpack"), (pack([1]), "a map of observations, not a list")],
)
def test_a_frame_that_is_no_request_is_malformed(session, frame, message):
    with pytest.raises(CodecError, match=message):
        session.understand(frame)


def test_an_error_is_text_for_openpi_and_a_reply_for_an_envelope(session):
    error = InvalidObservation("no image", field="observation/image")
    assert session.refuse(None, error) == "invalid_argument: no image"
    reply = InferReply.from_wire(unpack(session.refuse(4, error)).value)
    assert (reply.id, reply.error.message, reply.error.field) == (4, "no image", "observation/image")


@pytest.mark.parametrize(
    ("message", "identifier"),
    [
        ({"id": 9, "observation": {}, "batch": 0}, 9),
        ({"id": 9, "steps": 5}, 9),
        ({"id": "nine", "observation": {}}, None),
        ([1], None),
    ],
)
def test_an_error_names_the_envelope_that_it_answers(session, message, identifier):
    with pytest.raises(CodecError) as error:
        session.understand(pack(message))
    assert error.value.request_id == identifier


def test_a_question_about_steps_is_told_apart_and_answered(session):
    question = session.understand(pack(StepsRequest(3, load=29).to_wire()))
    assert question == StepsRequest(3, 29)
    assert session.understand(pack(StepsRequest(4).to_wire())) == StepsRequest(4)
    reply = StepsReply.from_wire(unpack(session.tell(StepsReply(3, (19, 29), LIBERO))).value)
    assert reply == StepsReply(3, (19, 29), LIBERO)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 5}, "steps must be a map: empty, or with `load`."),
        ({"steps": {"load": -1}}, "steps.load must be a whole number from 0, not '-1'."),
        ({"steps": {"laod": 1}}, "The request has unknown fields: laod."),
        ({"steps": {}, "noise_seed": 1}, "The request has unknown fields: noise_seed."),
    ],
)
def test_a_question_about_steps_with_a_wrong_field_is_malformed(session, fields, message):
    with pytest.raises(CodecError) as error:
        session.understand(pack({"id": 1, **fields}))
    assert error.value.message == message


def nested(depth: int) -> dict[str, object]:
    return {"a": nested(depth - 1)} if depth else {"a": 1}


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({f"key{number}": "x" for number in range(1001)}, "The observation has more than 1,000 entries."),
        ({"images": {str(number): "x" for number in range(1000)}}, "The observation has more than 1,000 entries."),
        (nested(8), "The observation has maps and lists in each other more than 8 deep."),
        ({"k" * 201: "x"}, "The observation has a key of more than 200 characters."),
    ],
)
@pytest.mark.parametrize("batch", [None, 8])
def test_an_observation_with_more_structure_than_any_robots_is_refused_before_it_is_split(
    session, observation, message, batch
):
    frame = pack(observation) if batch is None else pack(InferRequest(1, observation, batch=batch).to_wire())
    with pytest.raises(InvalidObservation, match=message):
        session.understand(frame)
