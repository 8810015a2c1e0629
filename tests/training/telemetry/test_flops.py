"""The arithmetic of a step is what its products with weights cost, and a little for attention."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

from training.experiments import find_experiment
from training.freezing import Freezing
from training.pi05.model.config import preset
from training.pi05.model.params import param_shapes, unflatten
from training.pi05.model.pi import ModelInput
from training.samples import Samples
from training.telemetry.flops import peak_flops, training_flops
from training.train_step import make_gradients

BATCH, CAMERAS, PROMPT = 2, 2, 64


def flops(model, **changes):
    return training_flops(model, **{"batch": BATCH, "cameras": CAMERAS, "prompt": PROMPT, **changes})


def test_a_token_costs_six_operations_for_each_weight_that_it_meets():
    """Within what attention takes: a few per cent at these lengths."""
    language, expert, vision = 1_981_808_640, 311_427_072, 411_435_648  # weights of products in the full model
    model = preset("pi05")
    tokens = {language: CAMERAS * 256 + PROMPT, expert: model.action_horizon, vision: CAMERAS * 256}
    expected = 6 * BATCH * sum(weights * count for weights, count in tokens.items())
    assert expected < flops(model) < 1.06 * expected


def test_a_step_costs_in_proportion_to_its_batch():
    assert flops(preset("pi05"), batch=8) == 4 * flops(preset("pi05"))


def test_another_draw_costs_the_suffix_and_not_the_prefix():
    model = preset("pi05")
    one, two, three = (flops(model, draws=draws) for draws in (1, 2, 3))
    assert three - two == two - one
    assert 6 * BATCH * model.action_horizon * 311_427_072 < two - one < 0.2 * one


def test_pi0s_state_is_one_token_more():
    pi05 = replace(preset("pi05_small"), action_horizon=17)
    assert flops(preset("pi0_small")) == pytest.approx(flops(pi05))


def traced(experiment):
    """The program that computes the loss and its gradient for a batch, without what nobody reads."""
    model, rows = experiment.model, (BATCH,)
    side, slots = model.vision.image_size, ("base_0_rgb", "left_wrist_0_rgb")
    inputs = ModelInput(
        images={slot: jax.ShapeDtypeStruct((*rows, side, side, 3), jnp.uint8) for slot in slots},
        image_masks={slot: jax.ShapeDtypeStruct(rows, bool) for slot in slots},
        tokens=jax.ShapeDtypeStruct((*rows, PROMPT), jnp.int32),
        token_mask=jax.ShapeDtypeStruct((*rows, PROMPT), bool),
        state=jax.ShapeDtypeStruct((*rows, model.action_dim), jnp.float32),
    )
    actions = jax.ShapeDtypeStruct((*rows, model.action_horizon, model.action_dim), jnp.float32)
    key, params = jax.eval_shape(lambda: jax.random.key(0)), unflatten(param_shapes(model))
    program = jax.make_jaxpr(make_gradients(experiment))(params, key, Samples(inputs, actions, actions)).jaxpr
    return dce_jaxpr(program, [True] * len(program.outvars))[0]


def product_flops(program):
    """Of every matrix product in a program, those in a loop as often as it runs."""
    total = 0
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in summed)
        for inner in jaxprs_in_params(equation.params):
            total += product_flops(inner) * equation.params.get("length", 1)
    return total


@pytest.mark.parametrize(
    ("freeze", "draws"),
    [
        (None, 1),
        (None, 3),
        (("PaliGemma/llm/*", "!*_1/*"), 1),
        (("PaliGemma/*", "!*_1/*"), 2),
        (("PaliGemma/img/*",), 1),
    ],
)
def test_the_products_of_the_traced_gradient_are_those_that_are_counted(freeze, draws):
    """Frozen weights have no gradient of their own, none flows back through a frozen prefix, and draws share it."""
    experiment = find_experiment("pi05_maniskill_stackcube_small")
    experiment = replace(experiment, freeze=freeze, draws_per_sample=draws, unroll_layers=False)
    counted = flops(experiment.model, draws=draws, frozen=Freezing.of(experiment).frozen)
    assert product_flops(traced(experiment)) == pytest.approx(counted, rel=0.02)


def test_a_frozen_weight_costs_four_operations_for_each_token_that_it_meets():
    """openpi's LoRA: both transformers frozen but for the factors, which cost 2% of them; vision trains whole."""
    experiment = find_experiment("pi05_maniskill_stackcube_lora")
    share = flops(experiment.model, frozen=Freezing.of(experiment).frozen) / flops(preset("pi05"))
    assert 4 / 6 < share < 0.75


def test_devices_are_known_by_a_part_of_their_name():
    assert peak_flops(SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")) == 989e12
    assert peak_flops(SimpleNamespace(device_kind="cpu")) is None
