"""The codec: both array encodings, byte for byte openpi's, and nothing unsafe."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policy_protocol import ArrayEncoding, pack, unpack
from policy_protocol.errors import CodecError
from policy_protocol.jpeg import JpegImage

RECORDED = json.loads((Path(__file__).parents[1] / "data/openpi/msgpack.json").read_text())
BOTH = pytest.mark.parametrize("encoding", list(ArrayEncoding))


def value_of(recorded):
    """The Python value that a recorded entry describes."""
    if isinstance(recorded, dict) and "np" in recorded:
        array = np.array(recorded["values"], dtype=recorded["dtype"]).reshape(recorded["shape"])
        return array if recorded["np"] == "ndarray" else array[()]
    if isinstance(recorded, dict) and "bytes_hex" in recorded:
        return bytes.fromhex(recorded["bytes_hex"])
    if isinstance(recorded, dict):
        return {key: value_of(item) for key, item in recorded.items()}
    return [value_of(item) for item in recorded] if isinstance(recorded, list) else recorded


def assert_same(left, right):
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, (np.ndarray, np.generic)):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    else:
        assert left == right
        assert type(left) is type(right)


@pytest.mark.parametrize("name", ["observation", "response", "metadata", "empty"])
def test_bytes_that_openpi_packed_are_read_as_openpi_reads_them(name):
    decoded = unpack(bytes.fromhex(RECORDED[name]["hex"]))
    assert decoded.encoding is ArrayEncoding.OPENPI
    assert_same(decoded.value, value_of(RECORDED[name]["decoded"]))


@pytest.mark.parametrize("name", ["response", "metadata", "empty"])
def test_what_we_pack_is_what_openpi_packs(name):
    assert pack(value_of(RECORDED[name]["value"])).hex() == RECORDED[name]["hex"]


@pytest.mark.parametrize("value", [np.arange(6, dtype="<f4").reshape(2, 3), np.zeros((0, 3), "u1"), np.float32(2.5)])
def test_the_package_msgpack_numpy_is_read_and_reads_our_answer(value):
    sent = msgpack.packb({"a": value}, default=msgpack_numpy.encode)
    decoded = unpack(sent)
    assert decoded.encoding is ArrayEncoding.MSGPACK_NUMPY
    assert_same(decoded.value["a"], value)
    answer = msgpack.unpackb(pack({"a": value}, decoded.encoding), object_hook=msgpack_numpy.decode)
    assert_same(answer["a"], value)


@BOTH
@given(
    array=hnp.arrays(
        st.one_of(
            hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(sizes=(16, 32, 64)), st.just("?")
        ),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
def test_every_safe_array_survives_the_round_trip(encoding, array):
    received = unpack(pack({"x": array}, encoding)).value["x"]
    assert received.dtype == array.dtype
    np.testing.assert_array_equal(received, array)


@BOTH
@pytest.mark.parametrize("array", [np.array([object()]), np.array([1j]), np.zeros(1, [("a", "i4")])])
def test_unsafe_dtypes_are_not_sent(encoding, array):
    with pytest.raises(CodecError, match="cannot be sent"):
        pack({"x": array}, encoding)


def array_map(**changes):
    fields = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]}
    return msgpack.packb({**fields, **{name.encode(): value for name, value in changes.items()}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "|O"}, "dtype '|O' is refused"),
        ({"dtype": "<c8"}, "is refused"),
        ({"dtype": "f4,f4"}, "is refused"),
        ({"dtype": "V4"}, "is refused"),
        ({"dtype": "nonsense("}, "is refused"),
        ({"dtype": 7}, "is refused"),
        ({"shape": [-2]}, "non-negative integers"),
        ({"shape": [True, 2]}, "non-negative integers"),
        ({"shape": [2**40, 2**40]}, "holds .* bytes, not 8"),
        ({"shape": [0, 2**62, 2**62]}, "holds 0 bytes, not 8"),
        ({"shape": [0, 2**62, 2**62], "data": b""}, "is refused"),
        ({"shape": [10**9, 0], "data": b""}, "is large and holds nothing"),
        ({"shape": [0], "dtype": "<U500000000", "data": b""}, "is large and holds nothing"),
        ({"shape": [10**9], "dtype": "<U0", "data": b""}, "its elements have no size"),
        ({"shape": [2], "dtype": "|S0", "data": b""}, "its elements have no size"),
        ({"shape": [1] * 33}, "at most 32 lengths"),
        ({"shape": 2}, "at most 32 lengths"),
        ({"shape": [3]}, "holds 12 bytes, not 8"),
        ({"data": "text"}, "data is a byte string"),
    ],
)
def test_a_malformed_array_is_refused(changes, message):
    with pytest.raises(CodecError, match=message):
        unpack(array_map(**changes))


@BOTH
@pytest.mark.parametrize("dtype", ["<U0", "|S0"])
def test_a_few_bytes_in_a_list_never_become_a_large_array(encoding, dtype):
    names = {ArrayEncoding.OPENPI: ("__ndarray__", "dtype"), ArrayEncoding.MSGPACK_NUMPY: ("nd", "type")}[encoding]
    hollow = {names[0]: True, "data": b"", names[1]: dtype, "shape": [10**9]}
    with pytest.raises(CodecError, match="its elements have no size"):
        unpack(msgpack.packb([hollow]))


@BOTH
def test_an_empty_batch_of_images_is_read(encoding):
    assert unpack(pack(np.zeros((0, 224, 224, 3), np.uint8), encoding)).value.shape == (0, 224, 224, 3)


def test_an_empty_string_of_msgpack_numpy_is_read():
    assert unpack(msgpack.packb(np.bytes_(b""), default=msgpack_numpy.encode)).value == b""
    assert unpack(msgpack.packb({"nd": False, "type": "<U0", "data": b""})).value == ""


def test_pickled_arrays_of_msgpack_numpy_are_never_unpickled():
    sent = msgpack.packb({b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": b"cos\nsystem\n."})
    with pytest.raises(CodecError, match="is refused"):
        unpack(sent)


def test_complex_numbers_of_msgpack_numpy_are_refused():
    with pytest.raises(CodecError, match="Complex numbers are refused"):
        unpack(msgpack.packb({b"complex": True, b"data": "1j"}))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_decoded_or_refused_and_nothing_else(data):
    with contextlib.suppress(CodecError):  # any other exception fails the test
        unpack(data)


def test_deep_nesting_is_refused():
    with pytest.raises(CodecError, match="not valid msgpack"):
        unpack(b"\x91" * 100_000 + b"\xc0")


def test_decoded_arrays_share_the_messages_memory_and_are_read_only():
    assert not unpack(pack(np.zeros(3))).value.flags.writeable


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xdd" + (2**31).to_bytes(4, "big"), "is not valid msgpack: 2147483648 exceeds max_array_len"),
        (b"\xdf" + (2**31).to_bytes(4, "big"), "is not valid msgpack: 2147483648 exceeds max_map_len"),
        (msgpack.packb([{}] * 20_000), "has too many parts (1,000,000). Send numbers as numpy arrays."),
        (pack([np.zeros(0)] * 10_000), "has too many parts (1,000,000). Send numbers as numpy arrays."),
        (pack([np.float32(1)] * 10_000), "has too many parts (1,000,000). Send numbers as numpy arrays."),
        (msgpack.packb([[]] * 100_000), "has too many parts (1,000,000). Send numbers as numpy arrays."),
        (msgpack.packb([[0] * 100_000] * 11), "has too many parts (1,000,000). Send numbers as numpy arrays."),
    ],
)
def test_a_message_of_too_many_parts_is_refused_before_it_is_read_whole(message, reason):
    with pytest.raises(CodecError, match=re.escape(reason)):
        unpack(message)


def test_as_many_parts_as_a_large_batch_has_are_read():
    rows = {name: [JpegImage(b"x")] * 1024 for name in ("one", "two", "three", "four")}
    moments = [{"env_id": "PushCube-v1", "seed": 1, "step": 2}] * 1024
    message = {"observation": {**rows, "state": [np.zeros(1)] * 1024, "prompt": ["x"] * 1024}, "episode": moments}
    assert unpack(pack(message)).value["episode"] == moments


def test_an_image_as_nested_lists_is_still_read():
    assert len(unpack(pack({"x": np.zeros((224, 224, 3), np.uint8).tolist()})).value["x"]) == 224
