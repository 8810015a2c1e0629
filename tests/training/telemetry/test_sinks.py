"""What is told to a sink can be read back from its files."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from training.experiment import Experiment
from training.parallel.mesh import make_mesh
from training.pi05.model.config import preset
from training.telemetry import EveryProcess
from training.telemetry.machine import Machine
from training.telemetry.sample_images import sample_images
from training.telemetry.sinks import SinkMissing, TensorBoard, WeightsAndBiases


def events(directory):
    """Every event of TensorBoard's files, in order: a length, its checksum, the message, its checksum."""
    for path in sorted((directory / "tensorboard").iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            size = int.from_bytes(data[place : place + 8], "little")
            yield Event.FromString(data[place + 12 : place + 12 + size])
            place += 16 + size


def test_numbers_and_pictures_reach_tensorboards_files(tmp_path):
    sink = TensorBoard(tmp_path, 0)
    sink.image(0, "samples/base_0_rgb", np.zeros((4, 8, 3), np.uint8))
    sink.scalars(7, {"train/loss": 0.5, "train/grad_norm": 2.0})
    sink.close()
    values = [(event.step, value) for event in events(tmp_path) for value in event.summary.value]
    assert [(step, value.tag, value.simple_value) for step, value in values if not value.image.width] == [
        (7, "train/loss", 0.5),
        (7, "train/grad_norm", 2.0),
    ]
    (picture,) = [value for _, value in values if value.image.width]
    assert (picture.tag, picture.image.height, picture.image.width) == ("samples/base_0_rgb", 4, 8)


def test_a_resumed_run_hides_what_its_earlier_part_told_of_later_steps(tmp_path):
    TensorBoard(tmp_path, 4).close()
    assert [event.step for event in events(tmp_path) if event.session_log.status] == [4]


def test_a_full_disk_is_an_error_and_never_a_wait(tmp_path, no_room_for_files_beyond):
    """Many more numbers than any queue holds."""

    def tell():
        sink = TensorBoard(tmp_path, 0)
        for step in range(50):
            sink.scalars(step, {"train/loss": 0.5, "train/grad_norm": 2.0})

    with no_room_for_files_beyond(100), pytest.raises(OSError, match="File too large"):
        tell()


def test_weights_and_biases_without_its_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SinkMissing) as error:
        WeightsAndBiases(tmp_path, "a/b", "id", {})
    assert error.value.message == "--wandb needs the package wandb: pip install wandb, or leave --wandb out."


@pytest.fixture
def samples():
    frames = np.arange(3 * 16 * 16 * 3, dtype=np.uint8).reshape(3, 16, 16, 3)
    return SimpleNamespace(inputs=SimpleNamespace(images={"base_0_rgb": frames}))


def test_sample_images_stand_side_by_side_as_they_are(samples):
    experiment = Experiment("tiny", preset("pi05_small"), "none")
    picture = sample_images(experiment, samples)["base_0_rgb"]
    np.testing.assert_array_equal(picture, np.concatenate(list(samples.inputs.images["base_0_rgb"]), axis=1))


def test_sample_images_are_augmented_where_training_augments(samples):
    experiment = Experiment("tiny", preset("pi05_small"), "none", augment=True)
    picture = sample_images(experiment, samples)["base_0_rgb"]
    assert (picture.shape, picture.dtype) == ((16, 48, 3), np.uint8)
    assert np.any(picture != np.concatenate(list(samples.inputs.images["base_0_rgb"]), axis=1))


def test_a_record_gets_the_memory_that_the_process_took():
    record = {"step": 0, "loss": 1.0, "data_wait_share": 0.25}
    line = EveryProcess(make_mesh(Experiment("tiny", preset("pi05_small"), "none"), jax.devices()[:1])).record(record)
    assert line.items() >= record.items()
    assert line["memory_gb"] > 0.01


def test_a_record_gets_the_share_of_the_devices_speed_where_it_is_known(monkeypatch):
    experiment = Experiment("tiny", preset("pi05_small"), "none")
    record = {"step": 0, "loss": 1.0, "step_seconds": 2.0}
    assert Machine(experiment, 2, 64).record(record) == record  # a CPU
    monkeypatch.setattr("training.telemetry.machine.peak_flops", lambda device: 1e12)
    fast, slow = (Machine(experiment, 2, 64).record({**record, "step_seconds": time})["mfu"] for time in (1.0, 2.0))
    assert fast == 2 * slow > 0
