"""Whatever bytes come in, only errors of ours come out.

`make fuzz` runs these for ten minutes; CHUNKWIRE_FUZZ_SECONDS says for how long all of them together.
"""

from __future__ import annotations

import contextlib
import io
import os
import time

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from policy_protocol import ActionChunk, ArrayEncoding, EpisodeMoment, InferReply, InferRequest, pack, unpack
from policy_protocol.errors import ChunkwireError, CodecError, error_from_wire
from policy_protocol.jpeg import JpegImage
from policy_protocol.protobuf_messages import parse_request, request_from_proto, request_to_proto
from policy_protocol.steps import StepsReply, StepsRequest
from policy_server import Session
from policy_server.policies.dummy import zeros_policy
from policy_server.policies.jpeg import decoded

from .conftest import LIBERO

SECONDS = float(os.environ.get("CHUNKWIRE_FUZZ_SECONDS", "0"))
TARGETS = 9
CHUNK = ActionChunk(np.zeros((20, 7)), {"infer_ms": 5.0, "queue_ms": 1.0})
POLICY = zeros_policy(LIBERO)
CAMERAS = {camera.key: camera for camera in LIBERO.observation.cameras}


def jpeg(side, **options):
    """A smooth square."""
    buffer, ramp = io.BytesIO(), np.arange(side, dtype=np.uint8)
    Image.fromarray(np.stack([ramp[:, None] + ramp * k for k in (0, 1, 2)], -1)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


JPEGS = [jpeg(224), jpeg(224, quality=5), jpeg(224, progressive=True), jpeg(8)]

OBSERVATION = {
    "observation/image": np.zeros((4, 4, 3), np.uint8),
    "observation/wrist_image": np.zeros((4, 4, 3), np.uint8),
    "observation/state": np.zeros(8, np.float32),
    "prompt": "pick up the red cube",
}
REQUESTS = [
    InferRequest(1, OBSERVATION, 7, None, 50.0, EpisodeMoment("PushCube-v1", 5, 16)),
    InferRequest(2, {key: np.stack([value] * 2) for key, value in list(OBSERVATION.items())[:3]}, batch=2),
    InferRequest(3, {**OBSERVATION, "observation/image": JpegImage(JPEGS[1])}),
]
MESSAGES = [
    pack(message, encoding) for message in (OBSERVATION, *(r.to_wire() for r in REQUESTS)) for encoding in ArrayEncoding
]
STEPS = [pack(StepsRequest(4, load).to_wire()) for load in (None, 29)]
PROTOS = [request_to_proto(request).SerializeToString() for request in REQUESTS]

numbers = st.one_of(
    st.sampled_from([0, 1, 2, 3, 8, -1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), True, False]),
    st.floats(),
    st.sampled_from([float("nan"), float("inf"), 1e308, 5e-324]),
)
scalars = st.one_of(st.none(), numbers, st.text(max_size=8), st.binary(max_size=64))
dtypes = st.one_of(
    st.sampled_from(
        [
            "|u1",
            "|b1",
            "<f4",
            ">f8",
            "<f2",
            "<i8",
            "|S4",
            "|S0",
            "<U2",
            "<U0",
            "|O",
            "|V8",
            "<c8",
            "<M8[ns]",
            "<m8",
            "<f4,<f4",
            "(2,2)<f4",
            "O8",
            "u1,O",
            "f128",
            "g",
            "e",
            ",",
            "{}",
            "[]",
        ]
    ),
    st.text(max_size=6),
    scalars,
)
shapes = st.one_of(st.lists(numbers, max_size=4), st.lists(st.integers(0, 4), max_size=3), scalars)


def _array_map(keys, **fields):
    return st.fixed_dictionaries({(key.encode() if keys else key): value for key, value in fields.items()})


array_maps = st.booleans().flatmap(
    lambda keys: st.one_of(
        _array_map(keys, __ndarray__=scalars, data=scalars, dtype=dtypes, shape=shapes),
        _array_map(keys, __npgeneric__=scalars, data=scalars, dtype=dtypes),
        _array_map(keys, nd=scalars, type=dtypes, kind=scalars, shape=shapes, data=scalars),
        _array_map(keys, complex=scalars, data=scalars),
        _array_map(keys, __jpeg__=scalars, data=st.sampled_from(JPEGS) | scalars),
    )
)
hollow_maps = st.builds(
    lambda mark, dtype, shape: {mark: True, "dtype": dtype, "type": dtype, "shape": shape, "data": b""},
    st.sampled_from(["__ndarray__", "nd"]),
    st.sampled_from(["|S0", "<U0", "|u1", "<f4", "<U500000000"]),
    st.lists(st.sampled_from([0, 1, 2, 10**6, 10**9]), max_size=3),
)
arrays = st.builds(
    lambda dtype, shape: np.zeros(shape, dtype),
    st.sampled_from(["u1", "i8", "f2", "f4", "f8", "?", "S3", "U2"]),
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 8]), max_size=4),
)
leaves = st.one_of(scalars, array_maps, hollow_maps, arrays.map(lambda array: msgpack.unpackb(pack(array))))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4) | scalars, inner, max_size=4)
    ),
    max_leaves=10,
)
observations = st.fixed_dictionaries(
    {}, optional={key: leaves | trees | st.just(OBSERVATION[key]) for key in OBSERVATION}
)
envelopes = st.fixed_dictionaries(
    {"id": st.integers(0, 9) | scalars},
    optional={
        "observation": observations | trees,
        "steps": st.fixed_dictionaries({}, optional={"load": st.integers(0, 99) | scalars}) | trees,
        "noise_seed": scalars,
        "batch": st.integers(1, 4) | scalars,
        "deadline_ms": scalars,
        "episode": trees | st.fixed_dictionaries({"env_id": scalars, "seed": scalars, "step": scalars}),
        "extra": scalars,
    },
)


@st.composite
def mutated(draw, originals):
    """A valid message with some bytes changed, taken out or put in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        cut = draw(st.integers(0, 8))
        data[at : at + cut] = draw(st.binary(max_size=8))
    return bytes(data)


def packed(values):
    """What msgpack can write of them."""
    return values.map(_pack_or_nothing)


def _pack_or_nothing(value):
    with contextlib.suppress(CodecError, TypeError):
        return pack(value)
    return b""


def fuzzed(strategy):
    """A test of one argument that goes on for its share of CHUNKWIRE_FUZZ_SECONDS."""

    def decorate(check):
        everything = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
        thorough = settings(
            max_examples=2000 if SECONDS else 100, deadline=None, suppress_health_check=everything, database=None
        )

        def test():
            seen, end = [], time.monotonic() + SECONDS / TARGETS
            once = thorough(given(strategy)(lambda data: (seen.append(1), check(data))[1]))
            once()
            while time.monotonic() < end:
                once()
            print(f"{check.__name__}: {len(seen):,} inputs")

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return pytest.mark.timeout(SECONDS + 600)(test)

    return decorate


def understand(frame):
    """What a connection does with a frame, up to the device."""
    session = Session(LIBERO, max_batch=8)
    try:
        question = session.understand(frame)
    except ChunkwireError as error:
        session.refuse(error.request_id, error)
        return
    if isinstance(question, StepsRequest):
        session.tell(StepsReply(question.id, (1, 2), LIBERO))
        return
    session.answer(question, CHUNK)
    for row in range(len(question.observations)):
        question.row_seed(row)
        with contextlib.suppress(ChunkwireError):
            POLICY.transform(decoded(question.observations[row], CAMERAS))


def decode(data):
    """Nothing in a message that is decoded may be larger than the message, for a copy would be, too."""
    with contextlib.suppress(CodecError):
        for array in arrays_in(unpack(data).value):
            assert array.size <= max(len(data), 1)
            assert np.prod([length for length in array.shape if length]) <= max(len(data), 1_000_000)


def arrays_in(value):
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from arrays_in(item)


@fuzzed(st.binary(max_size=300) | mutated(MESSAGES))
def test_bytes_are_decoded_or_refused_as_malformed(data):
    decode(data)


@fuzzed(packed(trees))
def test_messages_of_any_form_are_decoded_or_refused_as_malformed(data):
    decode(data)


@fuzzed(st.binary(max_size=300) | st.text(max_size=20) | mutated(MESSAGES + STEPS))
def test_frames_are_understood_or_refused(data):
    understand(data)


@fuzzed(packed(observations))
def test_observations_of_any_form_are_understood_or_refused(data):
    understand(data)


@fuzzed(packed(envelopes))
def test_envelopes_of_any_form_are_understood_or_refused(data):
    understand(data)


@fuzzed(st.binary(max_size=300) | mutated(PROTOS))
def test_protobuf_requests_are_understood_or_refused(data):
    with contextlib.suppress(ChunkwireError):
        question = Session(LIBERO, max_batch=8).admit(request_from_proto(parse_request(data)))
        for observation in question.observations:
            POLICY.transform(decoded(observation, CAMERAS))


@fuzzed(mutated(JPEGS))
def test_jpegs_are_decoded_or_refused(data):
    with contextlib.suppress(ChunkwireError):
        image = decoded({"observation/image": JpegImage(data)}, CAMERAS)["observation/image"]
        assert (image.shape, image.dtype) == ((224, 224, 3), np.uint8)


@fuzzed(packed(trees | st.dictionaries(st.sampled_from(["id", "actions", "timing", "error", "checkpoint"]), trees)))
def test_replies_of_any_form_are_understood_or_refused_by_the_client(data):
    with contextlib.suppress(ChunkwireError):
        reply = unpack(data).value
        error_from_wire(reply)
        InferReply.from_wire(reply)


@fuzzed(packed(trees | st.dictionaries(st.sampled_from(["id", "steps", "policy_spec", "error"]), trees)))
def test_replies_about_steps_are_understood_or_refused_by_the_client(data):
    with contextlib.suppress(ChunkwireError):
        StepsReply.from_wire(unpack(data).value)
