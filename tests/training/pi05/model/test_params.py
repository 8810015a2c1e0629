"""Parameter trees: which leaves a model has, which model a tree is of, and how a mismatch is told."""

from __future__ import annotations

import dataclasses
import re

import jax
import numpy as np
import pytest

from training.pi05.model.config import UnknownPreset, preset
from training.pi05.model.params import (
    ParamsMismatch,
    check_params,
    config_of_params,
    count_params,
    flatten,
    param_shapes,
    unflatten,
)

PRESETS = pytest.mark.parametrize("name", ["pi05", "pi0", "pi05_lora", "pi0_lora", "pi05_small", "pi0_small"])


@pytest.mark.parametrize(("name", "leaves", "parameters"), [("pi05", 51, 3_353_433_872), ("pi0", 50, 3_238_048_528)])
def test_the_full_models_have_openpis_parameters(name, leaves, parameters):
    shapes = param_shapes(preset(name))
    assert len(shapes) == leaves
    assert count_params(shapes) == parameters


@PRESETS
def test_a_tree_tells_its_model(name):
    model = preset(name)
    found = config_of_params(param_shapes(model), model.action_horizon, model.max_token_len, model.dtype)
    assert found == dataclasses.replace(model, remat=found.remat)


def test_the_small_models_differ_in_their_family_alone():
    pi05, pi0 = preset("pi05_small"), preset("pi0_small")
    assert (pi05.family, pi0.family) == ("pi05", "pi0")
    assert dataclasses.replace(pi0, family="pi05") == pi05
    assert "state_proj/kernel" in param_shapes(pi0)


def test_equal_heads_and_key_value_heads_make_one_matrix_and_are_told_apart():
    model = preset("pi05_small")
    gemma = dataclasses.replace(model.language, kv_heads=model.language.heads)
    model = dataclasses.replace(model, language=gemma, expert=gemma)
    shapes = param_shapes(model)
    assert shapes["PaliGemma/llm/layers/attn/qkv_einsum/w"].shape == (4, 3, 4, 128, 32)
    assert config_of_params(shapes, 16, 64, "float32").language.kv_heads == 4


def test_an_unknown_preset_offers_the_closest():
    with pytest.raises(UnknownPreset) as error:
        preset("pi05_smal")
    assert error.value.message == "Unknown model preset 'pi05_smal'. Did you mean 'pi05_small'?"


def test_a_tree_survives_being_flattened(tiny_pi05):
    back = unflatten(flatten(tiny_pi05.params))
    jax.tree.map(np.testing.assert_array_equal, back, tiny_pi05.params)


def test_openpis_own_tree_is_the_models(tiny):
    check_params(flatten(tiny.params), tiny.config, "openpi's")


def message_of(flat, config):
    with pytest.raises(ParamsMismatch) as error:
        check_params(flat, config, "runs/a/9/params")
    return error.value.message


def test_a_missing_leaf_is_named(tiny_pi05):
    flat = flatten(tiny_pi05.params)
    del flat["time_mlp_in/bias"]
    assert message_of(flat, tiny_pi05.config) == (
        "The parameters in runs/a/9/params are not those of this pi05 model. 1 missing: time_mlp_in/bias."
    )


def test_an_unexpected_leaf_is_named(tiny_pi05):
    flat = {**flatten(tiny_pi05.params), "PaliGemma/llm/layers/attn/q_einsum/lora_a": np.zeros(1)}
    assert message_of(flat, tiny_pi05.config) == (
        "The parameters in runs/a/9/params are not those of this pi05 model. "
        "It holds LoRA leaves: merge them first with `train merge CHECKPOINT OUT`. "
        "1 unexpected: PaliGemma/llm/layers/attn/q_einsum/lora_a."
    )


def test_plain_weights_in_a_lora_model_say_so(tiny_pi05):
    lora = dataclasses.replace(tiny_pi05.config, expert=dataclasses.replace(tiny_pi05.config.expert, lora_rank=4))
    message = message_of(flatten(tiny_pi05.params), lora)
    assert message.startswith(
        "The parameters in runs/a/9/params are not those of this pi05 model. "
        "The model has LoRA leaves and it holds none. 10 missing: PaliGemma/llm/layers/attn/attn_vec_einsum_1/lora_a, "
    )


def test_a_misshapen_leaf_is_named_with_both_shapes(tiny_pi05):
    flat = {**flatten(tiny_pi05.params), "action_in_proj/kernel": np.zeros((7, 32))}
    assert message_of(flat, tiny_pi05.config) == (
        "The parameters in runs/a/9/params are not those of this pi05 model. "
        "1 of the wrong shape: action_in_proj/kernel is (7, 32), expected (32, 32)."
    )


def test_a_pi0_tree_in_a_pi05_model_lists_what_differs_and_counts_the_rest(tiny_pi0, tiny_pi05):
    message = message_of(flatten(tiny_pi0.params), tiny_pi05.config)
    assert message.startswith(
        "The parameters in runs/a/9/params are not those of this pi05 model. "
        "It holds pi0 weights (state_proj, action_time_mlp_in, action_time_mlp_out). 10 missing: "
    )
    for part in ("10 missing:", "9 unexpected:", "time_mlp_in/kernel", "action_time_mlp_in/kernel", "and 2 more"):
        assert part in message
    assert len(re.findall("time_mlp_out/kernel", message)) >= 1


def test_a_pi05_tree_in_a_pi0_model_is_told_by_its_own_parts(tiny_pi0, tiny_pi05):
    message = message_of(flatten(tiny_pi05.params), tiny_pi0.config)
    assert "this pi0 model. It holds pi05 weights (time_mlp_in, time_mlp_out). " in message


def test_a_tree_of_something_else_names_the_first_leaf_that_it_lacks():
    with pytest.raises(ParamsMismatch) as error:
        config_of_params({"resnet/kernel": np.zeros((3, 3))}, 10, 48, "float32")
    assert error.value.message == (
        "These are not the parameters of a Pi0 or Pi0.5 model: the leaf 'PaliGemma/img/embedding/kernel' is missing."
    )


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_type_that_no_model_computes_in_is_told_as_such(tiny_pi05, dtype):
    with pytest.raises(ValueError, match=f"^dtype must be bfloat16 or float32, not {dtype}.$"):
        config_of_params(flatten(tiny_pi05.params), 20, 64, dtype)


def test_a_leaf_of_another_rank_is_no_traceback(tiny_pi05):
    flat = {**flatten(tiny_pi05.params), "PaliGemma/img/embedding/kernel": np.zeros((3, 3))}
    with pytest.raises(ParamsMismatch) as error:
        config_of_params(flat, 20, 64, "float32")
    assert error.value.message == (
        "These are not the parameters of a Pi0 or Pi0.5 model: their shapes give no sizes "
        "(not enough values to unpack (expected 4, got 2))."
    )
