"""The gRPC schema: the same meaning as the envelope, read as safely, and stubs that are not stale."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import policy_protocol
from policy_protocol import ActionChunk, EpisodeMoment, InferReply, InferRequest
from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import CodecError, InvalidObservation, Overloaded, ProtocolViolation, RemoteError
from policy_protocol.jpeg import JpegImage
from policy_protocol.protobuf_messages import (
    error_from_proto,
    error_to_proto,
    parse_request,
    reply_from_proto,
    reply_to_proto,
    request_from_proto,
    request_to_proto,
    steps_request_from_proto,
)
from policy_protocol.protobuf_values import tensor_from_proto, tensor_to_proto

FOLDER = Path(policy_protocol.__file__).parent


def there_and_back(request):
    return request_from_proto(parse_request(request_to_proto(request).SerializeToString()))


@pytest.mark.parametrize("stub", ["policy_pb2.py", "policy_pb2.pyi", "policy_pb2_grpc.py"])
def test_the_stubs_are_those_of_the_schema(stub):
    digest = hashlib.sha256((FOLDER / "policy.proto").read_bytes()).hexdigest()
    first_line = (FOLDER / stub).read_text().partition("\n")[0]
    assert f"sha256 {digest}." in first_line, "policy.proto has changed since; run `make proto`"


def test_the_contract_itself_loads_neither_protobuf_nor_grpc():
    code = "import sys, policy_protocol; print([name for name in ('google.protobuf', 'grpc') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_request_survives_the_wire_with_every_kind_of_value():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    observation = {
        "observation/image": image,
        "images": {"top": image[:, ::2], "deeper": {"still": np.float32(1.5)}},
        "prompt": ["a", "b"],
        "words": np.array(["c", "d"]),
        "mixed": [1, 2.5, True, "x", [[1], [1, 2]], []],
        "nothing": np.zeros((3, 0), np.float64),
    }
    request = InferRequest(2**63 - 1, observation, 2**63 - 1, 2, 50.5, EpisodeMoment("PushCube-v1", 5, 16))
    back = there_and_back(request)
    np.testing.assert_array_equal(back.observation["observation/image"], image)
    np.testing.assert_array_equal(back.observation["images"]["top"], image[:, ::2])
    assert back.observation["images"]["deeper"]["still"] == np.float32(1.5)
    assert back.observation["prompt"] == ["a", "b"]
    assert back.observation["words"] == ["c", "d"]
    assert back.observation["mixed"] == [1, 2.5, True, "x", [[1], [1, 2]], []]
    assert [type(value) for value in back.observation["mixed"][:3]] == [int, float, bool]
    assert back.observation["nothing"].shape == (3, 0)
    assert (back.id, back.noise_seed, back.batch, back.deadline_ms) == (2**63 - 1, 2**63 - 1, 2, 50.5)
    assert back.episode == request.episode


def test_a_seed_and_a_moment_for_each_row_survive_the_wire():
    moments = EpisodeMoment("PushCube-v1", 5, 16), EpisodeMoment("PushCube-v1", 6, 0)
    request = InferRequest(3, {"prompt": "x"}, (2**63 - 1, 0), 2, episode=moments)
    assert there_and_back(request) == request


def test_a_seed_for_all_rows_beside_one_for_each_is_refused():
    message = request_to_proto(InferRequest(3, {"prompt": "x"}, (1, 2), 2))
    message.noise_seed = 1
    with pytest.raises(CodecError, match="has both noise_seed and noise_seeds; one of them is for all rows"):
        request_from_proto(message)


def test_rows_of_seeds_and_episodes_are_as_many_as_the_batch():
    message = request_to_proto(InferRequest(1, {"prompt": "x"}, noise_seed=(1, 2), batch=2))
    message.batch = 3
    with pytest.raises(CodecError, match=r"^The request has 2 noise_seeds for a batch of 3\.$"):
        request_from_proto(message)
    message = request_to_proto(InferRequest(1, {"prompt": "x"}, batch=70_000))
    message.episodes.extend([pb.EpisodeMoment()] * 70_000)
    with pytest.raises(CodecError, match=r"^The request has 70000 episodes, which is more than 65,536\.$"):
        request_from_proto(message)


def test_fields_that_are_none_come_back_as_none():
    assert there_and_back(InferRequest(0, {})) == InferRequest(0, {})


@pytest.mark.parametrize("dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">i8"])
def test_a_tensor_keeps_its_dtype_in_little_endian(dtype):
    array = np.arange(6).astype(dtype).reshape(2, 3)
    back = tensor_from_proto(tensor_to_proto(array))
    assert back.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable


@pytest.mark.parametrize("value", [np.zeros(2, complex), np.array([object()]), np.array([b"x"]), None, b"x", 2**63])
def test_a_value_without_a_form_cannot_be_sent(value):
    with pytest.raises(CodecError, match="cannot be sent") as caught:
        request_to_proto(InferRequest(0, {"key": value}))
    assert caught.value.field == "key"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (pb.Tensor(shape=[1], data=b"x"), "A tensor of dtype 0 is refused"),
        (pb.Tensor(dtype=99, shape=[1], data=b"x"), "A tensor of dtype 99 is refused"),
        (pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[2], data=bytes(7)), r"holds 8 bytes, not 7"),
        (pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[-1], data=b""), "holds non-negative integers"),
        (pb.Tensor(dtype=pb.DTYPE_UINT8, shape=[2**62, 2**62], data=b""), "bytes, not 0"),
        (pb.Tensor(dtype=pb.DTYPE_UINT8, shape=[2**62, 2**62, 0], data=b""), "is refused"),
        (pb.Tensor(dtype=pb.DTYPE_UINT8, shape=[10**9, 0], data=b""), "is large and holds nothing"),
        (pb.Tensor(dtype=pb.DTYPE_UINT8, shape=[1] * 33, data=b"x"), "at most 32 lengths"),
    ],
)
def test_a_malformed_tensor_is_refused_by_its_key(tensor, message):
    nested = pb.Observation(entries={"top": pb.Value(tensor=tensor)})
    request = pb.InferRequest(observation=pb.Observation(entries={"images": pb.Value(nested=nested)}))
    with pytest.raises(CodecError, match=message) as caught:
        request_from_proto(request)
    assert caught.value.field == "images/top"


@pytest.mark.parametrize(
    ("request_", "message", "field"),
    [
        (pb.InferRequest(id=1), "The request has no observation", "observation"),
        (pb.InferRequest(id=2**63, observation=pb.Observation()), "id must be a whole number from 0", "id"),
        (pb.InferRequest(observation=pb.Observation(), batch=0), "batch must be a whole number from 1", "batch"),
        (pb.InferRequest(observation=pb.Observation(), deadline_ms=0), "deadline_ms must be a positive", "deadline_ms"),
        (
            pb.InferRequest(observation=pb.Observation(entries={"x": pb.Value()})),
            "of the observation holds nothing",
            "x",
        ),
        (pb.InferRequest.FromString(b"\x12\x00\xf8\x01\x01"), "The request has unknown fields: 31.", None),
    ],
)
def test_a_wrong_request_is_refused_by_field(request_, message, field):
    with pytest.raises(CodecError, match=message) as caught:
        request_from_proto(request_)
    assert caught.value.field == field


@pytest.mark.parametrize("data", [b"\xff", b"\x12\x05ab", b"GET / HTTP/1.1"])
def test_bytes_that_are_no_request_are_malformed(data):
    with pytest.raises(CodecError, match="no InferRequest of chunkwire.policy.v1"):
        parse_request(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: nested(nested(nested(values(20_000), 4), 1), 2), id="values of a list"),
        pytest.param(lambda: nested(b"\x0a\x00" * 20_000, 2), id="entries of a map"),
        pytest.param(lambda: nested(nested(b"\x12\x00" * 20_000, 1), 2), id="texts of one value"),
        pytest.param(lambda: b"\x42\x00" * 20_001, id="episodes"),
        pytest.param(lambda: nested(b"\x01" * 1_000_001, 7), id="noise seeds"),
        pytest.param(lambda: b"\x38\x01" * 20_001, id="noise seeds one by one"),
        pytest.param(lambda: b"\x08\x01" * 20_001, id="one number again and again"),
        pytest.param(lambda: b"\xf8\x01\x01" * 20_001, id="unknown fields"),
    ],
)
def test_a_message_of_too_many_parts_is_refused_before_protobuf_makes_objects_of_them(data, monkeypatch):
    written = data()
    monkeypatch.setattr(pb.InferRequest, "FromString", lambda data: pytest.fail("it was parsed"))
    with pytest.raises(CodecError) as caught:
        parse_request(written)
    assert caught.value.message == (
        "The message has too many parts (1,000,000; a field counts as 50). Send numbers as tensors, or fewer rows."
    )


def values(count):
    return b"\x0a\x00" * count


def test_a_question_about_steps_of_too_many_parts_is_refused_too():
    with pytest.raises(CodecError, match="too many parts"):
        steps_request_from_proto(b"\xf8\x01\x01" * 20_001)


def test_as_many_parts_as_a_large_batch_has_are_read():
    moments = (EpisodeMoment("PushCube-v1", 2**63 - 1, 16),) * 1024
    rows = {name: [JpegImage(b"x" * 1000)] * 1024 for name in ("one", "two", "three", "four")}
    request = InferRequest(3, {**rows, "prompt": ["x"] * 1024}, (2**63 - 1,) * 1024, 1024, episode=moments)
    assert there_and_back(request) == request


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_message_that_is_cut_off_is_malformed(cut):
    data = request_to_proto(InferRequest(1, {"state": np.arange(8.0), "prompt": "x"}, 3)).SerializeToString()
    with pytest.raises(CodecError, match=r"^The message is no InferRequest of chunkwire\.policy\.v1\.$"):
        parse_request(data[:-cut])


def test_maps_nested_without_end_are_malformed():
    data = b""
    for _ in range(500):
        data = nested(nested(data, 3), 1)
    with pytest.raises(CodecError, match="no InferRequest"):
        parse_request(nested(data, 2))


def nested(data, field):
    """`data` as a length-delimited field; a map's entry holds its value as field 2."""
    body = data if field != 1 else b"\x12" + _length(data) + data
    return bytes([field << 3 | 2]) + _length(body) + body


def _length(data):
    size, written = len(data), b""
    while size > 127:
        written += bytes([size & 127 | 128])
        size >>= 7
    return written + bytes([size])


def test_a_reply_survives_the_wire():
    chunk = ActionChunk(np.ones((2, 3)), {"infer_ms": 1.5}, "experiment/run/5")
    back = reply_from_proto(reply_to_proto(InferReply(4, chunk)))
    assert (back.id, back.chunk.timing, back.chunk.checkpoint) == (4, {"infer_ms": 1.5}, "experiment/run/5")
    np.testing.assert_array_equal(back.chunk.actions, np.ones((2, 3)))


def test_an_error_comes_back_as_its_own_kind():
    error = reply_from_proto(reply_to_proto(InferReply(1, error=InvalidObservation("no image", field="image")))).error
    assert isinstance(error, InvalidObservation)
    assert (error.message, error.field) == ("no image", "image")
    later = error_from_proto(error_to_proto(Overloaded("later", retry_after_ms=30)))
    assert isinstance(later, Overloaded)
    assert later.retry_after_ms == 30
    assert isinstance(error_from_proto(pb.Error(code="on_fire", message="the rack burns")), RemoteError)


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u6c34", "\U0001f916", "\ud800"])
def test_an_error_fits_into_the_metadata_of_a_call_whatever_the_client_wrote(letter):
    message = error_to_proto(InvalidObservation(letter * 100_000, field="y" + letter * 100_000))
    assert message.ByteSize() < 2300
    assert set(message.message) == {"?" if letter == "\ud800" else letter}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (pb.InferResponse(id=1), "neither actions nor an error"),
        (pb.InferResponse(chunk=pb.ActionChunk()), "actions cannot be read: A tensor of dtype 0"),
        (pb.InferResponse(chunk=pb.ActionChunk(actions=tensor_to_proto(np.zeros(2, int)))), "no floating-point"),
    ],
)
def test_what_is_not_a_reply_is_a_violation(reply, message):
    with pytest.raises(ProtocolViolation, match=message):
        reply_from_proto(reply)
