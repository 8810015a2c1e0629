"""Freezing: which leaves stay, what they cost, and that they do stay."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.experiment import ExperimentInvalid, OptimizerConfig
from training.experiments import find_experiment
from training.freezing import Freezing
from training.pi05.model.params import flatten, init_params, param_shapes
from training.samples import Samples
from training.train_state import init_state, state_shapes
from training.train_step import make_train_step

PICKCUBE = find_experiment("pi05_maniskill_pickcube_small")


def lora(language, expert):
    model = PICKCUBE.model
    return dataclasses.replace(
        PICKCUBE,
        model=dataclasses.replace(
            model,
            language=dataclasses.replace(model.language, lora_rank=language),
            expert=dataclasses.replace(model.expert, lora_rank=expert),
        ),
    )


def frozen(experiment):
    return Freezing.of(experiment).frozen


def llm(experiment, expert=None):
    """Leaves of the transformers that are no LoRA factors."""
    paths = (path for path in param_shapes(experiment.model) if "/llm/" in path and "lora" not in path)
    return {path for path in paths if expert is None or ("_1/" in path) == expert}


def test_without_lora_nothing_is_frozen():
    assert frozen(PICKCUBE) == set()


def test_with_lora_the_transformers_are_frozen_but_for_the_factors_and_the_image_tower_is_not():
    both, language, expert = lora(2, 2), lora(2, 0), lora(0, 2)
    assert frozen(both) == llm(both)
    assert frozen(language) == llm(language, expert=False)
    assert frozen(expert) == llm(expert, expert=True)


def test_of_the_patterns_that_match_a_leaf_the_last_decides():
    chosen = dataclasses.replace(PICKCUBE, freeze=("PaliGemma/*", "!PaliGemma/img/head/*", "*/head/bias"))
    assert "PaliGemma/img/head/kernel" not in frozen(chosen)
    assert "PaliGemma/img/head/bias" in frozen(chosen)
    assert "action_in_proj/kernel" not in frozen(chosen)
    assert frozen(dataclasses.replace(lora(2, 2), freeze=())) == set()


def test_a_pattern_without_a_leaf_and_a_model_without_a_trained_leaf_are_refused():
    with pytest.raises(ExperimentInvalid) as error:
        frozen(dataclasses.replace(PICKCUBE, freeze=("PaliGema/*",)))
    assert error.value.message == (
        "freeze: 'PaliGema/*' matches no leaf of the model, such as PaliGemma/img/Transformer/encoder_norm/bias. "
        "A star stands for any letters, slashes too."
    )
    with pytest.raises(ExperimentInvalid) as error:
        frozen(dataclasses.replace(PICKCUBE, freeze=("*",)))
    assert error.value.message == "freeze leaves no leaf to train. Let some go: a pattern with a ! in front."


def test_frozen_leaves_are_bfloat16_and_have_no_optimizer_state_and_no_average():
    experiment = lora(2, 2)
    state, stays = state_shapes(experiment), frozen(experiment)
    types = {path: leaf.dtype for path, leaf in flatten(state.params).items()}
    assert types == {path: jnp.bfloat16 if path in stays else jnp.float32 for path in types}
    trained = types.keys() - stays
    moments = state.opt_state[1][0]
    assert flatten(moments.mu).keys() == flatten(moments.nu).keys() == trained
    assert flatten(state.ema_params).keys() == trained
    assert flatten(state.served_params).keys() == types.keys()


def test_the_full_models_lora_state_fits_one_device():
    """openpi says more than 22.5 GB of memory for LoRA; the full model's state alone is 54 GB."""

    def gigabytes(name):
        return (
            sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state_shapes(find_experiment(name)))) / 1e9
        )

    assert gigabytes("pi05_maniskill_pickcube") == pytest.approx(4 * 4 * 3.3534, rel=1e-3)
    assert gigabytes("pi05_maniskill_pickcube_lora") < 12


def test_an_update_moves_the_trained_leaves_and_no_frozen_one(tiny_pi05):
    expert = dataclasses.replace(tiny_pi05.config.expert, lora_rank=2)
    model = dataclasses.replace(tiny_pi05.config, dtype="float32", remat=False, expert=expert)
    experiment = dataclasses.replace(
        lora(0, 2), model=model, execution_horizon=1, optimizer=OptimizerConfig(warmup_steps=1, peak_lr=1e-2)
    )
    fresh = init_params(model, jax.random.key(0))  # its gates are shut: the recorded weights let gradients through
    state = init_state(experiment, Freezing(frozenset()).join(tiny_pi05.params, fresh))
    before = jax.device_get(flatten(state.params))
    actions = tiny_pi05.recorded["in/actions"]
    samples = Samples(tiny_pi05.inputs_of("base_0_rgb"), actions, np.ones_like(actions))
    state, metrics = make_train_step(experiment)(state, jax.random.key(1), samples)
    after, stays = jax.device_get(flatten(state.params)), frozen(experiment)
    assert np.isfinite(metrics["loss"])
    for path in stays:
        np.testing.assert_array_equal(after[path], before[path])
    factors = {path for path in before if "lora" in path}
    assert factors
    assert all(np.any(after[path] != before[path]) for path in factors)
