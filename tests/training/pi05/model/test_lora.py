"""LoRA: openpi's leaves, openpi's equations, and weights that hold their factors after merging."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from training.pi05.model.config import GemmaConfig, preset
from training.pi05.model.lora import is_lora, lora_equations, merge_lora
from training.pi05.model.params import count_params, flatten, param_shapes, unflatten
from training.pi05.model.pi import PiModel

_LAYERS = "PaliGemma/llm/layers"


@pytest.fixture(scope="module")
def factors_of():
    """Random factors for a tiny model, large enough to matter."""

    def make(tiny, rank=3):
        config = with_rank(tiny.config, rank)
        draw = np.random.default_rng(0)
        shapes = param_shapes(config)
        fresh = {path: draw.normal(0, 0.3, leaf.shape).astype(np.float32) for path, leaf in shapes.items()}
        return config, {path: leaf for path, leaf in fresh.items() if is_lora(path)}

    return make


def with_rank(config, rank):
    language, expert = (dataclasses.replace(part, lora_rank=rank) for part in (config.language, config.expert))
    return dataclasses.replace(config, language=language, expert=expert)


def test_the_full_models_factors_have_openpis_names_and_shapes():
    shapes = param_shapes(preset("pi05_lora"))
    factors = {path.removeprefix(f"{_LAYERS}/"): leaf.shape for path, leaf in shapes.items() if is_lora(path)}
    assert factors == {
        "attn/q_einsum/lora_a": (18, 8, 2048, 16),
        "attn/q_einsum/lora_b": (18, 8, 16, 256),
        "attn/kv_einsum/lora_a": (18, 2, 1, 2048, 16),
        "attn/kv_einsum/lora_b": (18, 2, 1, 16, 256),
        "attn/attn_vec_einsum/lora_a": (18, 8, 256, 16),
        "attn/attn_vec_einsum/lora_b": (18, 8, 16, 2048),
        "attn/q_einsum_1/lora_a": (18, 8, 1024, 32),
        "attn/q_einsum_1/lora_b": (18, 8, 32, 256),
        "attn/kv_einsum_1/lora_a": (18, 2, 1, 1024, 32),
        "attn/kv_einsum_1/lora_b": (18, 2, 1, 32, 256),
        "attn/attn_vec_einsum_1/lora_a": (18, 8, 256, 32),
        "attn/attn_vec_einsum_1/lora_b": (18, 8, 32, 1024),
        "mlp/gating_einsum_lora_a": (18, 2, 2048, 16),
        "mlp/gating_einsum_lora_b": (18, 2, 16, 16384),
        "mlp/linear_lora_a": (18, 16384, 16),
        "mlp/linear_lora_b": (18, 16, 2048),
        "mlp_1/gating_einsum_lora_a": (18, 2, 1024, 32),
        "mlp_1/gating_einsum_lora_b": (18, 2, 32, 4096),
        "mlp_1/linear_lora_a": (18, 4096, 32),
        "mlp_1/linear_lora_b": (18, 32, 1024),
    }
    plain = {path: leaf for path, leaf in shapes.items() if not is_lora(path)}
    assert plain.keys() == param_shapes(preset("pi05")).keys()
    assert count_params(plain) == 3_353_433_872


@pytest.mark.parametrize(
    ("equation", "down", "up"),
    [
        ("BTD,NDH->BTNH", "BTD,NDL->BTNL", "BTNL,NLH->BTNH"),
        ("BSD,2KDH->2BSKH", "BSD,2KDL->2BSKL", "2BSKL,2KLH->2BSKH"),
        ("BTNH,NHD->BTD", "BTNH,NHL->BTL", "BTL,NLD->BTD"),  # the heads are summed in each factor on its own
    ],
)
def test_the_equations_through_the_factors_are_openpis(equation, down, up):
    assert lora_equations(equation) == (down, up)


def test_merged_weights_give_the_velocity_of_the_factors(tiny, factors_of):
    config, factors = factors_of(tiny)
    at = tiny.recorded

    def velocity(model, flat):
        return model.apply({"params": unflatten(flat)}, tiny.inputs, at["in/x_t"], at["in/time"])

    with_factors = {**flatten(tiny.params), **factors}
    beside = jax.jit(lambda flat: velocity(PiModel(config), flat))(with_factors)
    merged = merge_lora(with_factors)
    assert merged.keys() == flatten(tiny.params).keys()
    inside = jax.jit(lambda flat: velocity(tiny.model, flat))(merged)
    np.testing.assert_allclose(inside, beside, atol=1e-4)
    assert np.abs(beside - at["f32/v_t"]).max() > 1e-2  # the factors do something


def test_one_matrix_of_queries_keys_and_values_is_merged_too():
    draw = np.random.default_rng(0)
    w, a, b = (
        draw.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4, 8, 6), (2, 3, 4, 8, 2), (2, 3, 4, 2, 6))
    )
    merged = merge_lora({"attn/qkv_einsum/w": w, "attn/qkv_einsum/lora_a": a, "attn/qkv_einsum/lora_b": b})
    x = draw.normal(size=(1, 5, 8)).astype(np.float32)
    down, up = lora_equations("BSD,3KDH->3BSKH")
    digit = str.maketrans("3", "P")  # numpy's einsum knows letters only
    expected = np.einsum("BSD,PKDH->PBSKH", x, w[0]) + np.einsum(
        up.translate(digit), np.einsum(down.translate(digit), x, a[0]), b[0]
    )
    np.testing.assert_allclose(np.einsum("BSD,PKDH->PBSKH", x, merged["attn/qkv_einsum/w"][0]), expected, atol=1e-4)


def test_a_tree_without_factors_comes_back_as_it_is(tiny_pi05):
    flat = flatten(tiny_pi05.params)
    assert merge_lora(flat) == flat


def test_a_negative_rank_is_refused():
    with pytest.raises(ValueError, match="lora_rank must not be negative: -1"):
        GemmaConfig(width=8, mlp_width=8, depth=1, heads=1, kv_heads=1, head_dim=8, lora_rank=-1)
