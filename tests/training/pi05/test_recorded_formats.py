"""openpi's file formats and smallest parts, and the neighbours of its numbers that we compute in another way."""

from __future__ import annotations

import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from training.data.lerobot.writing.statistics import number_statistics
from training.pi05.model.norm import RMSNorm
from training.pi05.model.params import param_shapes
from training.pi05.transforms.images import parse_image, resize_with_pad
from training.pi05.transforms.normalization import read_norm_stats, write_norm_stats


@pytest.fixture(scope="module")
def others(openpi_data):
    with np.load(openpi_data / "others.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def helpers(openpi_data):
    with np.load(openpi_data / "helpers.npz") as arrays:
        return dict(arrays)


def test_every_leaf_has_openpis_path_shape_and_type(tiny, openpi_data):
    recorded = json.loads((openpi_data / "param_trees.json").read_text())[f"tiny_{tiny.family}"]
    ours = {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in param_shapes(tiny.config).items()}
    assert ours == recorded


def test_norm_stats_are_read_and_written_as_openpi_writes_them(openpi_data, tmp_path):
    example = openpi_data / "norm_stats_example.json"
    stats = read_norm_stats(example)
    recorded = json.loads(example.read_text())
    for key, entry in recorded["norm_stats"].items():
        for name, values in entry.items():
            np.testing.assert_array_equal(getattr(stats[key], name), values)
    write_norm_stats(tmp_path / "norm_stats.json", stats)
    assert json.loads((tmp_path / "norm_stats.json").read_text()) == recorded


def test_statistics_are_openpis_but_for_its_histogram(others):
    """openpi sums in float32 and reads quantiles from a histogram that it stretches: up to 2 % of the range off."""
    rows = others["running/in"].reshape(-1, 3)
    ours = number_statistics(rows)
    for name in ("mean", "std"):
        np.testing.assert_allclose(ours[name], others[f"running/{name}"], atol=1e-5)
    for name in ("q01", "q99"):
        assert np.all(np.abs(ours[name] - others[f"running/{name}"]) <= 0.02 * np.ptp(rows, axis=0))


SIZES = ["480x640", "128x128", "100x37", "37x100", "224x224", "225x224", "1x1", "batch60x80"]


@pytest.mark.parametrize("size", SIZES)
def test_resizing_is_within_one_of_the_resizing_that_openpi_does_in_jax(openpi_data, others, size):
    """openpi resizes by PIL what it serves and trains on, by jax what reaches the model in another size: never ours."""
    with np.load(openpi_data / "resize.npz") as recorded:
        ours = resize_with_pad(recorded[f"{size}/in"], 224, 224)[..., ::8, ::8, :].astype(np.float64)
    assert np.abs(ours - others[f"{size}/jax_u8"]).max() <= 1
    if f"{size}/jax_f32" in others:
        assert np.abs(ours - (others[f"{size}/jax_f32"] + 1) * 127.5).max() <= 1.01


@pytest.mark.parametrize("size", ["128x128", "100x37", "37x100", "224x224", "225x224", "1x1"])
def test_enlarging_is_within_three_of_the_resizing_of_openpis_torch_models(openpi_data, others, size):
    """Not so shrinking: torch takes single pixels where PIL takes means, up to half the range apart."""
    with np.load(openpi_data / "resize.npz") as recorded:
        ours = resize_with_pad(recorded[f"{size}/in"], 224, 224)[..., ::8, ::8, :].astype(np.int64)
    assert np.abs(ours - others[f"{size}/torch_u8"]).max() <= 3


def test_float_images_become_openpis_bytes(others):
    np.testing.assert_array_equal(
        parse_image(others["convert_to_uint8/in"], "observation/image"), others["convert_to_uint8/out"]
    )


def test_the_activations_are_openpis(helpers):
    x = jnp.asarray(helpers["gelu/x"])
    np.testing.assert_allclose(nn.gelu(x, approximate=True), helpers["gelu/out"], atol=1e-6)
    np.testing.assert_allclose(nn.swish(x), helpers["swish/out"], atol=1e-6)


def test_the_norm_of_bfloat16_tokens_is_openpis(helpers):
    x = jnp.asarray(helpers["rmsnorm/x"], jnp.bfloat16)
    out, _ = RMSNorm(adaptive=False).apply({"params": {"scale": helpers["rmsnorm/scale"]}}, x, None)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out.astype(jnp.float32), helpers["rmsnorm/out_bf16_x"])
