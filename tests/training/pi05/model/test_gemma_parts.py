"""The parts of the transformers, each against openpi's own numbers."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from training.pi05.model.attention import apply_rope, attention_mask
from training.pi05.model.norm import RMSNorm
from training.pi05.model.pi import time_embedding


@pytest.fixture(scope="module")
def helpers(openpi_data):
    with np.load(openpi_data / "helpers.npz") as recorded:
        return dict(recorded)


@pytest.mark.parametrize("case", ["causal", "prefixlm", "blocks", "padded", "holes", "batched_ar"])
def test_the_attention_mask_is_openpis(helpers, case):
    at = f"attn_mask/{case}"
    mask = attention_mask(helpers[f"{at}/input_mask"], helpers[f"{at}/mask_ar"])
    np.testing.assert_array_equal(mask, helpers[f"{at}/out"])


def test_no_token_sees_padding_and_padding_sees_nothing():
    mask = attention_mask(jnp.array([[True, True, False]]), jnp.zeros(3, bool))
    np.testing.assert_array_equal(mask[0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("head_dim", [8, 16, 256])
def test_rotary_embedding_is_openpis(helpers, head_dim):
    x, positions = helpers[f"rope/{head_dim}/x"], helpers[f"rope/{head_dim}/positions"]
    # The angle of the last position is its number of radians, of which float32 keeps four decimals.
    tolerance = np.where(positions > 100, 1e-4, 1e-5)[..., None, None]
    assert np.all(np.abs(apply_rope(x, positions) - helpers[f"rope/{head_dim}/out"]) <= tolerance)
    half = apply_rope(jnp.asarray(x, jnp.bfloat16), positions)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), helpers[f"rope/{head_dim}/out_bf16"], rtol=1e-2, atol=1e-2)


def test_rotary_embedding_makes_a_dot_product_depend_on_distance_alone():
    q, k = (np.random.default_rng(seed).standard_normal((1, 1, 1, 16), np.float32) for seed in (0, 1))

    def score(at_query, at_key):
        return float(jnp.sum(apply_rope(q, jnp.array([[at_query]])) * apply_rope(k, jnp.array([[at_key]]))))

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-2)


def test_the_norm_is_openpis(helpers):
    variables = {"params": {"scale": helpers["rmsnorm/scale"]}}
    out, gate = RMSNorm(adaptive=False).apply(variables, jnp.asarray(helpers["rmsnorm/x"]), None)
    np.testing.assert_allclose(out, helpers["rmsnorm/out"], atol=1e-5)
    assert gate is None


def test_the_adaptive_norm_and_its_gate_are_openpis(helpers):
    variables = {"params": {"Dense_0": {"kernel": helpers["adarms/kernel"], "bias": helpers["adarms/bias"]}}}
    out, gate = RMSNorm(adaptive=True).apply(variables, jnp.asarray(helpers["rmsnorm/x"]), helpers["adarms/cond"])
    np.testing.assert_allclose(out, helpers["adarms/out"], atol=1e-5)
    np.testing.assert_allclose(gate, helpers["adarms/gate"], atol=1e-5)


@pytest.mark.parametrize("width", [24, 32, 40, 64, 1024])
def test_the_time_embedding_is_openpis(helpers, width):
    # Phases reach 1570 rad, where one float32 unit in the last place of t is 1e-4 of the embedding.
    np.testing.assert_allclose(time_embedding(helpers["posemb/pos"], width), helpers[f"posemb/{width}"], atol=5e-4)
