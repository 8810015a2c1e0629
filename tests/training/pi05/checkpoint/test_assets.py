"""What stands beside the weights: which norm stats and which tokenizer are taken."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from training.pi05.checkpoint.step_directory import CheckpointInvalid, read_assets
from training.pi05.transforms.normalization import read_norm_stats, write_norm_stats
from training.pi05.transforms.tokenizer import TOKENIZERS

LIBERO = "physical-intelligence/libero"


@pytest.fixture
def step(tmp_path, tiny_steps):
    """A checkpoint with the norm stats of two robots; the second's mean is 5 higher."""
    step = tmp_path / "100"
    shutil.copytree(tiny_steps["pi05"] / "assets", step / "assets")
    stats = read_norm_stats(step / "assets" / LIBERO / "norm_stats.json")
    other = {key: dataclasses.replace(entry, mean=entry.mean + 5) for key, entry in stats.items()}
    write_norm_stats(step / "assets" / "droid" / "norm_stats.json", other)
    return step


def named(spec, asset_id="", tokenizer=""):
    prompt = dataclasses.replace(spec.observation.prompt, tokenizer=tokenizer)
    return dataclasses.replace(
        spec,
        policy=dataclasses.replace(spec.policy, asset_id=asset_id),
        observation=dataclasses.replace(spec.observation, prompt=prompt),
    )


def test_of_several_norm_stats_the_one_that_the_spec_names_is_taken(step, libero_spec, tiny_tokenizer):
    libero, droid = (
        read_assets(step, spec=named(libero_spec, asset_id), tokenizer=tiny_tokenizer) for asset_id in (LIBERO, "droid")
    )
    assert (libero.asset_id, droid.asset_id) == (LIBERO, "droid")
    assert droid.norm_stats["state"].mean[0] == pytest.approx(libero.norm_stats["state"].mean[0] + 5)


def test_norm_stats_that_the_spec_names_and_that_are_not_there_are_named(step, libero_spec, tiny_tokenizer):
    with pytest.raises(CheckpointInvalid) as error:
        read_assets(step, spec=named(libero_spec, "trossen"), tokenizer=tiny_tokenizer)
    assert error.value.message == (
        f"{step} has no norm stats for 'trossen', the asset id that the spec names; found: "
        "assets/droid/norm_stats.json, assets/physical-intelligence/libero/norm_stats.json. "
        "Pass --spec with the spec of this checkpoint, or a file with another policy.asset_id."
    )


def test_a_spec_may_name_the_tokenizer_of_a_checkpoint_that_has_none(step, libero_spec, tiny_tokenizer):
    spec = named(libero_spec, LIBERO, tokenizer="small")
    assert read_assets(step, spec=spec).tokenizer.vocabulary == 768
    assert read_assets(step, spec=spec, tokenizer=tiny_tokenizer).tokenizer.vocabulary == 512
    shutil.copy(tiny_tokenizer, step / "assets" / "tokenizer.model")
    assert read_assets(step, spec=spec).tokenizer.vocabulary == 512
    assert read_assets(step, spec=spec, tokenizer=TOKENIZERS["small"]).tokenizer.vocabulary == 768
