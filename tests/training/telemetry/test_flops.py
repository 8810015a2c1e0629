"""The arithmetic of a step is what its products with weights cost, and a little for attention."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from training.pi05.model.config import preset
from training.telemetry.flops import peak_flops, training_flops

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


def test_pi0s_state_is_one_token_more():
    pi05 = replace(preset("pi05_small"), action_horizon=17)
    assert flops(preset("pi0_small")) == pytest.approx(flops(pi05))


def test_devices_are_known_by_a_part_of_their_name():
    assert peak_flops(SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")) == 989e12
    assert peak_flops(SimpleNamespace(device_kind="cpu")) is None
