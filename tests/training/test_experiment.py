"""Experiments: what may be set, and how a slip is told."""

from __future__ import annotations

import dataclasses
import json

import pytest

from policy_protocol.json_tree import from_json
from training.experiment import Experiment, ExperimentInvalid, OptimizerConfig, override
from training.experiments import experiment_names, find_experiment
from training.pi05.model.config import GemmaConfig, SigLIPConfig, preset
from training.pi05.model.params import count_params, param_shapes
from training.pi05.transforms.tokenizer import Tokenizer
from training.train_state import learning_rate

SMALL = find_experiment("pi05_maniskill_stackcube_small")


@pytest.mark.parametrize("name", experiment_names())
def test_every_shipped_experiment_carries_its_files_name_and_builds(name):
    experiment = find_experiment(name)
    assert experiment.name == name
    assert count_params(param_shapes(experiment.model)) > 1_000_000


@pytest.mark.parametrize("task", ["stackcube", "pickcube", "pushcube", "pullcube", "placesphere", "peginsertionside"])
@pytest.mark.parametrize(("family", "batch_size"), [("pi05", 128), ("pi0", 256)])
def test_each_task_has_a_full_a_lora_and_a_small_experiment_of_both_families(family, batch_size, task):
    name = f"{family}_maniskill_{task}"
    full, lora, small = (find_experiment(name + variant) for variant in ("", "_lora", "_small"))
    assert {full.dataset, lora.dataset, small.dataset} == {f"datasets/{task}"}
    assert full.model == dataclasses.replace(preset(family), action_horizon=20)
    assert (full.batch_size, full.init) == (batch_size, f"gs://openpi-assets/checkpoints/{family}_base/params")
    schedule = full.optimizer
    assert (schedule.warmup_steps, schedule.peak_lr, schedule.clip_norm, schedule.ema_decay) == (10_000, 5e-5, 1, 0.999)
    assert learning_rate(schedule, full.decay_steps)(full.steps) == pytest.approx(5e-5)
    assert lora.model == dataclasses.replace(preset(f"{family}_lora"), action_horizon=20)
    assert (lora.optimizer.ema_decay, lora.init) == (None, full.init)
    assert small.model == preset(f"{family}_small")
    assert Tokenizer.load(small.tokenizer).vocabulary <= small.model.vocabulary
    validation = [(each.held_out, each.validate_every) for each in (full, lora, small)]
    assert validation == [(0.05, 1_000), (0.05, 1_000), (0.05, 250)]


def test_an_experiment_survives_its_json():
    assert from_json(Experiment, json.loads(SMALL.to_json())) == SMALL


def test_a_setting_takes_the_type_of_its_field():
    changed = override(
        SMALL,
        [
            "batch_size=4",
            "optimizer.peak_lr=1e-4",
            "optimizer.end_lr=0",
            "optimizer.ema_decay=null",
            "mask_padded_steps=false",
            "model.vision.depth=1",
            "normalization=zscore",
            "dataset=/data/x=y",
        ],
    )
    vision = dataclasses.replace(SMALL.model.vision, depth=1)
    assert changed == dataclasses.replace(
        SMALL,
        batch_size=4,
        optimizer=dataclasses.replace(SMALL.optimizer, peak_lr=1e-4, end_lr=0.0, ema_decay=None),
        mask_padded_steps=False,
        model=dataclasses.replace(SMALL.model, vision=vision),
        normalization="zscore",
        dataset="/data/x=y",
    )
    assert type(changed.optimizer.end_lr) is float


def test_an_experiment_names_one_dataset_or_several_with_weights():
    assert SMALL.datasets == ("datasets/stackcube",)
    several = override(SMALL, ["dataset=datasets/a=2, owner/name@v1=1"])
    assert several.datasets == ("datasets/a=2", "owner/name@v1=1")


def test_of_two_settings_of_one_field_the_last_counts():
    assert override(SMALL, ["steps=300", "steps=400"]).steps == 400


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_size", "--set takes PATH=VALUE, such as optimizer.peak_lr=1e-4, not 'batch_size'."),
        ("batchsize=4", "--set: there is no setting 'batchsize'. Did you mean 'batch_size'?"),
        ("optimizer.peak_rl=1", "--set: there is no setting 'optimizer.peak_rl'. Did you mean 'peak_lr'?"),
        ("optimiser.peak_lr=1", "--set: there is no setting 'optimiser.peak_lr'. Did you mean 'optimizer'?"),
        ("batch_size.x=1", "--set: there is no setting 'batch_size.x'."),
        ("batch_size=four", "--set: The field 'batch_size' must be a whole number, not 'four'."),
        ("batch_size=1.5", "--set: The field 'batch_size' must be a whole number, not '1.5'."),
        ("mask_padded_steps=1", "--set: The field 'mask_padded_steps' must be true or false, not '1'."),
        ("optimizer.peak_lr=fast", "--set: The field 'optimizer.peak_lr' must be a number, not 'fast'."),
        ("normalization=minmax", "--set: The field 'normalization' must be one of 'quantile', 'zscore', not 'minmax'."),
        ("batch_size=0", "The settings are not valid: batch_size must be at least 1, not 0."),
        ("accumulate_steps=0", "The settings are not valid: accumulate_steps must be at least 1, not 0."),
        (
            "accumulate_steps=5",
            "The settings are not valid: batch_size 32 is not a multiple of accumulate_steps 5.",
        ),
        ("fsdp_devices=0", "The settings are not valid: fsdp_devices must be at least 1 or null, not 0."),
        (
            "model.remat_policy=some",
            "--set: The field 'model.remat_policy' must be one of 'nothing_saveable', "
            "'dots_with_no_batch_dims_saveable', 'dots_saveable', not 'some'.",
        ),
        ("dataset=a,,b", "The settings are not valid: dataset names nothing on one side of a comma: 'a,,b'."),
        ("seed=-1", "The settings are not valid: seed must not be negative: -1."),
        (
            "execution_horizon=17",
            "The settings are not valid: execution_horizon 17 is not in 1..16 (action_horizon).",
        ),
        (
            "optimizer.warmup_steps=3000",
            "The settings are not valid: optimizer.warmup_steps 3000 is not in 0..2999: the schedule has 3000 steps. "
            "Set optimizer.warmup_steps or steps.",
        ),
        ("model.vision.patch_size=0", "--set: model.vision is not valid: patch_size must be at least 1, not 0."),
        (
            "model.vision.patch_size=7",
            "--set: model.vision is not valid: image_size 64 is not a multiple of patch_size 7.",
        ),
        ("model.vision.heads=5", "--set: model.vision is not valid: width 96 is not a multiple of heads 5."),
        ("model.language.kv_heads=3", "--set: model.language is not valid: heads 4 is not a multiple of kv_heads 3."),
        (
            "model.language.head_dim=7",
            "--set: model.language is not valid: head_dim 7 must be even: rotary embedding turns halves.",
        ),
        ("model.language.depth=3", "--set: model is not valid: the language model and the expert must share depth."),
    ],
)
def test_a_setting_that_cannot_be_says_why(setting, message):
    with pytest.raises(ExperimentInvalid) as error:
        override(SMALL, [setting])
    assert error.value.message == message


def test_an_unknown_experiment_offers_the_closest():
    with pytest.raises(ExperimentInvalid) as error:
        find_experiment("pi05_maniskill_stackcub_small")
    assert error.value.message == (
        "Unknown experiment 'pi05_maniskill_stackcub_small'. Did you mean 'pi05_maniskill_stackcube_small'? "
        "See them all: train list."
    )


def test_the_defaults_are_openpis():
    default = OptimizerConfig()
    assert (default.b1, default.b2, default.eps, default.weight_decay) == (0.9, 0.95, 1e-8, 1e-10)
    assert (default.peak_lr, default.end_lr, default.warmup_steps) == (2.5e-5, 2.5e-6, 1000)
    assert (default.clip_norm, default.ema_decay) == (1.0, 0.99)
    experiment = Experiment("x", preset("pi05"), "data")
    assert (experiment.batch_size, experiment.steps, experiment.seed) == (32, 30_000, 42)
    assert experiment.decay_steps == 30_000
    assert not experiment.mask_padded_steps
    assert not experiment.mask_padded_dimensions


@pytest.mark.parametrize(("family", "kind"), [("pi05", "quantile"), ("pi0", "zscore")])
def test_the_normalisation_is_the_familys_unless_it_is_given(family, kind):
    experiment = Experiment("x", preset(family), "data")
    assert experiment.normalization == kind
    assert json.loads(experiment.to_json())["normalization"] == kind
    for chosen in ("quantile", "zscore"):
        assert Experiment("x", preset(family), "data", normalization=chosen).normalization == chosen
        assert override(experiment, [f"normalization={chosen}"]).normalization == chosen
    assert override(experiment, ["normalization=null"]).normalization == kind


def test_a_pi0_run_of_before_keeps_the_quantiles_that_it_saved():
    tree = json.loads(Experiment("x", preset("pi0"), "data").to_json()) | {"normalization": "quantile"}
    assert from_json(Experiment, tree).normalization == "quantile"


def test_a_model_computes_in_bfloat16_or_float32():
    for dtype in ("float16", "float64", "int8"):
        with pytest.raises(ValueError, match=f"^dtype must be bfloat16 or float32, not {dtype}.$"):
            dataclasses.replace(SMALL.model, dtype=dtype)


def test_every_size_of_a_model_must_be_positive():
    with pytest.raises(ValueError, match="^depth must be at least 1, not 0.$"):
        SigLIPConfig(64, 8, 96, 0, 384, 3)
    with pytest.raises(ValueError, match="^kv_heads must be at least 1, not 0.$"):
        GemmaConfig(128, 384, 4, 4, 0, 32)
