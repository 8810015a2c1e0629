"""Images as JPEG: the policy gets the pixels that Pillow reads from them, and nothing unsafe is decoded."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from websockets.sync.client import connect

from policy_protocol import InferRequest, pack, unpack
from policy_protocol.errors import InvalidObservation, SpecMismatch
from policy_protocol.jpeg import JpegImage
from policy_server.policies.dummy import DummyPolicy
from policy_server.policies.jpeg import decoded
from sim_client import PolicyClient
from sim_client.errors import InvalidOption
from sim_client.wire.jpeg import with_jpeg

from .conftest import LIBERO
from .running_server import RunningServer

CAMERAS = {camera.key: camera for camera in LIBERO.observation.cameras}
KEY, SLOT = "observation/image", "base_0_rgb"


def picture(side=224, seed=0):
    """Smooth, as a camera's is."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(3 * x + 5 * y * (channel + 1) + seed) for channel in range(3)]
    return np.uint8(127 + 120 * np.stack(waves, axis=-1))


def encode(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, options.pop("format", "JPEG"), **options)
    return buffer.getvalue()


def look(data):
    return decoded({KEY: JpegImage(data)}, CAMERAS)[KEY]


class WatchingPolicy(DummyPolicy):
    """Keeps what it is shown."""

    def __init__(self):
        super().__init__(LIBERO, self._look)
        self.rows, self._lock = [], threading.Lock()

    def _look(self, rows, noise):
        with self._lock:
            self.rows.extend(rows)
        return np.zeros(noise.shape)


@pytest.fixture
def policy():
    return WatchingPolicy()


@pytest.fixture
def server(policy):
    server = RunningServer(LIBERO, policy)
    yield server
    server.stop()


@pytest.fixture
def observation(observation):
    return {**observation, KEY: picture(), "observation/wrist_image": picture(seed=2)}


def urls(server):
    return {"websocket": server.url, "grpc": f"grpc://{server.grpc_address}"}


@pytest.mark.parametrize("transport", ["websocket", "grpc"])
def test_the_policy_sees_the_pixels_of_the_jpeg(server, policy, observation, transport):
    with PolicyClient(urls(server)[transport], jpeg_quality=90) as client:
        client.infer(observation)
    (row,) = policy.rows
    sent = with_jpeg(observation, LIBERO, 90, batched=False)
    for camera in LIBERO.observation.cameras:
        expected = np.asarray(Image.open(io.BytesIO(sent[camera.key].data)))
        np.testing.assert_array_equal(row.images[camera.slot], expected)
        assert 0 < np.abs(expected - observation[camera.key].astype(float)).mean() < 3


@pytest.mark.parametrize("transport", ["websocket", "grpc"])
def test_a_batch_has_a_jpeg_for_each_row(server, policy, observation, transport):
    rows = {
        **{key: np.stack([picture(seed=seed) for seed in range(3)]) for key in CAMERAS},
        "observation/state": np.zeros((3, 8)),
        "prompt": "pick up the red cube",
    }
    with PolicyClient(urls(server)[transport], jpeg_quality=95) as client:
        assert client.infer(rows, batch=3).actions.shape == (3, 20, 7)
    assert len(policy.rows) == 3
    for row, image in zip(policy.rows, rows[KEY], strict=True):
        assert np.abs(row.images[SLOT] - image.astype(float)).mean() < 3


def test_a_jpeg_is_a_fraction_of_the_pixels_and_a_bare_observation_may_hold_one(server, policy, observation):
    frame = pack({**observation, KEY: JpegImage(encode(picture(), quality=90))})
    with connect(server.url, compression=None) as connection:
        connection.recv(timeout=10)
        connection.send(frame)
        assert unpack(connection.recv(timeout=10)).value["actions"].shape == (20, 7)
    assert len(encode(picture(), quality=90)) < picture().nbytes / 5


def test_a_key_may_be_a_path_into_nested_maps(policy):
    nested = {"observation": {"image": JpegImage(encode(picture()))}}
    assert decoded(nested, CAMERAS)["observation"]["image"].shape == (224, 224, 3)


def test_what_holds_no_jpeg_is_left_as_it_is(observation):
    assert decoded(observation, CAMERAS) is observation


def scans(data, count):
    """A JPEG with its only scan repeated."""
    start = data.index(b"\xff\xda")
    return data[:-2] + data[start:-2] * (count - 1) + data[-2:]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (encode(picture(96)), "is 96 x 96 pixels, but its camera is 224 x 224"),
        (encode(picture(225)), "is 225 x 225 pixels, but its camera is 224 x 224"),
        (encode(np.zeros((60_000, 224, 3), np.uint8), quality=1)[:100_000], "is 60000 x 224 pixels, but its"),
        (encode(picture()[..., 0]), "is in L instead of colour (RGB)"),
        (encode(picture(), progressive=True), "is progressive instead of baseline"),
        (encode(picture(), format="PNG"), "cannot be read: it is damaged, cut off, or no JPEG"),
        (encode(picture())[:3000], "cannot be read: it is damaged, cut off, or no JPEG"),
        (b"", "cannot be read: it is damaged, cut off, or no JPEG"),
        (b"\xff\xd8\xff\xe0" * 1000, "cannot be read: it is damaged, cut off, or no JPEG"),
        (encode(picture()) + bytes(300_000), "bytes; of its camera's size it has at most 216,064"),
        (scans(encode(picture()), 9), "has more than 8 scans"),
    ],
)
def test_a_jpeg_that_is_not_its_cameras_is_refused_and_says_why(data, what):
    with pytest.raises(InvalidObservation) as error:
        look(data)
    assert error.value.field == KEY
    assert error.value.message.startswith(f"The JPEG {KEY} ")
    assert what in error.value.message
    assert error.value.message.endswith("Send another one, or raw uint8 pixels.")


DAMAGED_EXIF = b"MM\x00\x2a\x00\x00\x00\x08" + (200).to_bytes(2, "big") + bytes(range(12)) * 200


def test_pillow_reads_what_a_camera_writes_where_this_server_keeps_it_from_that():
    """`_Header` overrides this method; Pillow has it since 10.4, and pyproject.toml asks for 11."""
    data = encode(picture(), exif=b"Exif\x00\x00" + DAMAGED_EXIF)
    assert "_read_dpi_from_exif" in vars(JpegImageFile)
    with pytest.warns(UserWarning, match="EXIF"):
        JpegImageFile(io.BytesIO(data))


def test_what_a_camera_writes_about_itself_is_not_read(recwarn):
    """Pillow would look for a resolution in it, and warn of each damaged entry."""
    data = encode(picture(), exif=b"Exif\x00\x00" + DAMAGED_EXIF)
    (camera,) = [one for one in LIBERO.observation.cameras if one.key == "observation/image"]
    assert decoded({camera.key: JpegImage(data)}, {camera.key: camera})[camera.key].shape == (224, 224, 3)
    assert not recwarn.list


def test_a_jpeg_under_no_cameras_key_is_refused():
    with pytest.raises(InvalidObservation) as error:
        decoded({"observation/state": JpegImage(encode(picture()))}, CAMERAS)
    assert error.value.message == (
        "observation/state is a JPEG, but the policy has no camera of this name. "
        "It has observation/image, observation/wrist_image."
    )


@pytest.mark.parametrize("transport", ["websocket", "grpc"])
@pytest.mark.parametrize("wrong", ["size", "list"])
def test_a_refused_jpeg_is_answered_and_the_connection_survives(server, observation, transport, wrong):
    with PolicyClient(urls(server)[transport]) as client:
        jpeg = JpegImage(encode(picture(96)))
        with pytest.raises(InvalidObservation) as error:
            client.infer({**observation, KEY: jpeg if wrong == "size" else [jpeg]})
        assert error.value.field == KEY
        assert client.infer(observation).actions.shape == (20, 7)


def test_damaged_jpegs_cost_an_error_of_ours_and_little_time():
    """Bytes changed at random, everywhere in the file."""
    random, whole = np.random.default_rng(0), np.frombuffer(encode(picture()), np.uint8)
    read = 0
    for _ in range(500):
        damaged = whole.copy()
        damaged[random.integers(0, len(whole) if random.random() < 0.5 else 700, 5)] = random.integers(0, 256, 5)
        try:
            assert look(damaged.tobytes()).shape == (224, 224, 3)
            read += 1
        except InvalidObservation:
            continue
    assert 0 < read < 500


def test_a_jpeg_that_is_no_bytes_is_malformed(server):
    with connect(server.url, compression=None) as connection:
        connection.recv(timeout=10)
        connection.send(pack({"id": 1, "observation": {KEY: {"__jpeg__": True, "data": "text"}}}))
        with pytest.raises(Exception, match="A JPEG's data is a byte string"):
            connection.recv(timeout=10)


def test_a_client_that_shall_send_jpeg_wants_a_server_that_takes_it(server, monkeypatch):
    monkeypatch.setattr(type(server.service), "features", ())
    for url in urls(server).values():
        with pytest.raises(SpecMismatch) as error:
            PolicyClient(url, jpeg_quality=90)
        assert error.value.message == (
            f"The policy server at {url} does not say that it takes JPEG images. Leave --jpeg-quality out, or install "
            "the same version of chunkwire on both sides."
        )


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_a_quality_that_is_none_is_said_so(quality):
    with pytest.raises(InvalidOption) as error:
        PolicyClient("127.0.0.1:1", jpeg_quality=quality)
    assert error.value.message == f"--jpeg-quality {quality} is no quality: pass a whole number from 1 to 100."


@pytest.mark.parametrize(
    ("image", "batched", "message"),
    [
        (picture().astype(np.float32), False, "must be (height, width, 3) uint8 to be sent as JPEG."),
        (picture()[..., 0], False, "must be (height, width, 3) uint8 to be sent as JPEG, not (224, 224)."),
        (picture(), True, "must be (batch, height, width, 3) uint8 to be sent as JPEG, not (224, 224, 3)."),
    ],
)
def test_what_is_no_image_is_not_sent(image, batched, message):
    with pytest.raises(InvalidObservation) as error:
        with_jpeg({KEY: image}, LIBERO, 90, batched)
    assert error.value.message == f"{KEY} {message}"


def test_a_request_with_a_jpeg_survives_both_encodings():
    request = InferRequest(1, {KEY: JpegImage(b"\xff\xd8")})
    assert InferRequest.from_wire(unpack(pack(request.to_wire())).value) == request
