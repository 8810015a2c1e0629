"""A checkpoint as a policy: raw observations in, actions in physical units out."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from policy_protocol.errors import InternalError
from training.pi05.checkpoint.step_directory import CheckpointInvalid, read_assets
from training.pi05.policy import Policy, load_policy, noise_from_seed
from training.pi05.transforms.normalization import read_norm_stats, unnormalize, write_norm_stats
from training.pi05.transforms.tokenizer import TOKENIZERS


def recorded(openpi_data, family):
    with np.load(openpi_data / f"tiny_{family}_policy.npz") as arrays:
        return dict(arrays)


def observation_of(arrays, case):
    prefix = f"obs|{case}|"
    raw = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
    return {key.removeprefix("images|"): value for key, value in raw.items()}


@pytest.fixture(scope="module")
def libero(tiny_steps, libero_spec, tiny_tokenizer):
    return load_policy(tiny_steps["pi05"], spec=libero_spec, tokenizer=tiny_tokenizer, dtype="float32")


@pytest.fixture(scope="module")
def libero_recorded(openpi_data):
    return recorded(openpi_data, "pi05")


def one_step_policy(tiny_pi05, tiny_steps, spec, tokenizer, params):
    """The tiny policy with other weights or another spec, denoising in one step."""
    spec = dataclasses.replace(spec, policy=dataclasses.replace(spec.policy, denoising_steps=1))
    return Policy(tiny_pi05.config, params, read_assets(tiny_steps["pi05"], spec=spec, tokenizer=tokenizer))


@pytest.fixture(scope="module")
def remade(tiny_pi05, tiny_steps, libero_spec, tiny_tokenizer):
    """Makes such a policy: `remade(params=…, spec=…)`."""

    def make(params=tiny_pi05.params, spec=libero_spec):
        return one_step_policy(tiny_pi05, tiny_steps, spec, tiny_tokenizer, params)

    return make


def actions_of(policy, observations, noise, pad_to=None):
    rows = [policy.transform(observation) for observation in observations]
    return policy.infer_rows(rows, np.stack([noise] * len(rows)), pad_to)


@pytest.mark.parametrize("case", ["a224", "b_96"])
def test_pi05s_tokens_and_actions_are_openpis_end_to_end(libero, libero_recorded, case):
    observation = observation_of(libero_recorded, case)
    ids = libero_recorded[f"transformed|{case}|tokenized_prompt"]
    row = libero.transform(observation)
    np.testing.assert_array_equal(row.tokens, ids[: len(row.tokens)])
    assert not np.any(ids[len(row.tokens) :])
    actions = actions_of(libero, [observation], libero_recorded["noise"])[0]
    np.testing.assert_allclose(actions, libero_recorded[f"f32|{case}|actions"], atol=1e-4)
    assert actions.dtype == np.float64


@pytest.fixture(scope="module")
def flat_aloha(tiny_steps, flat_aloha_spec, tiny_tokenizer):
    return load_policy(tiny_steps["pi0"], spec=flat_aloha_spec, tokenizer=tiny_tokenizer, dtype="float32")


def test_pi0s_prompt_and_batch_run_through_the_same_policy(flat_aloha, openpi_data):
    """ALOHA turns joints around and its gripper into angles before the model: that is not a spec's to say (yet)."""
    arrays = recorded(openpi_data, "pi0")
    observation = observation_of(arrays, "a224")
    row = flat_aloha.transform(observation)
    ids = arrays["transformed|a224|tokenized_prompt"]
    np.testing.assert_array_equal(row.tokens, ids[: len(row.tokens)])
    assert flat_aloha(observation, noise_seed=0).actions.shape == (10, 14)


def test_the_same_seed_gives_the_same_actions_and_another_seed_others(libero, libero_recorded):
    observation = observation_of(libero_recorded, "b_96")
    first, again, other = (libero(observation, noise_seed=seed).actions for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_without_a_seed_every_request_draws_fresh_noise(libero, libero_recorded):
    observation = observation_of(libero_recorded, "b_96")
    assert np.abs(libero(observation).actions - libero(observation).actions).max() > 1e-3


def test_noise_depends_on_the_seed_alone():
    noise = noise_from_seed(11, (20, 32))
    np.testing.assert_array_equal(noise, noise_from_seed(11, (20, 32)))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.15
    assert noise.std() == pytest.approx(1.0, abs=0.1)


def test_a_request_in_a_padded_batch_gets_what_it_gets_alone(libero, libero_recorded):
    observations = [observation_of(libero_recorded, case) for case in ("a224", "b_96")]
    noise = libero_recorded["noise"]
    together = actions_of(libero, observations, noise, pad_to=4)
    assert together.shape == (2, 20, 7)
    alone = np.concatenate([actions_of(libero, [observation], noise) for observation in observations])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_delta_dimensions_are_added_to_the_state_at_the_chunks_start(remade, libero_spec, libero_recorded):
    delta_mask = (True, False, True, False, False, False, False)
    spec = dataclasses.replace(libero_spec, action=dataclasses.replace(libero_spec.action, delta_mask=delta_mask))
    observation = observation_of(libero_recorded, "b_96")
    plain, absolute = (
        actions_of(policy, [observation], libero_recorded["noise"])[0] for policy in (remade(), remade(spec=spec))
    )
    expected = plain + np.where(delta_mask, observation["observation/state"][:7], 0.0)
    np.testing.assert_allclose(absolute, expected, atol=1e-6)


def test_a_reply_says_how_long_it_took(libero, libero_recorded):
    timing = libero(observation_of(libero_recorded, "b_96"), noise_seed=0).timing
    assert 0 < timing["infer_ms"] < timing["total_ms"]


def test_the_parameters_are_counted(libero, tiny_pi05):
    assert libero.parameter_count == sum(leaf.size for leaf in jax.tree.leaves(tiny_pi05.params))


def test_weights_that_give_nan_raise_an_internal_error(remade, libero_recorded, tiny_pi05):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), tiny_pi05.params)
    policy = remade(params=broken)
    with pytest.raises(InternalError) as error:
        policy(observation_of(libero_recorded, "a224"), noise_seed=0)
    assert error.value.message == "The model produced NaN or infinite actions; the weights are probably damaged."


def refusal(*arguments, **keywords):
    with pytest.raises(CheckpointInvalid) as error:
        load_policy(*arguments, **keywords)
    return error.value.message


def test_a_tokenizer_with_more_pieces_than_the_model_embeds_is_refused(tiny_steps, libero_spec):
    message = refusal(tiny_steps["pi05"], spec=libero_spec, tokenizer=TOKENIZERS["small"])
    assert message == (
        "The tokenizer has 768 pieces but the model embeds 512: it is not the one that the model was trained with."
    )


def test_weights_of_the_other_family_are_refused(tiny_steps, libero_spec, tiny_tokenizer):
    message = refusal(tiny_steps["pi0"], spec=libero_spec, tokenizer=tiny_tokenizer)
    assert message == f"{tiny_steps['pi0']} holds pi0 weights but its spec says pi05."


@pytest.mark.parametrize("name", ["state", "actions"])
def test_norm_stats_that_do_not_cover_the_spec_are_refused(tmp_path, tiny_steps, libero_spec, tiny_tokenizer, name):
    step = shutil.copytree(tiny_steps["pi05"], tmp_path / "100")
    asset_id = "physical-intelligence/libero"
    path = step / "assets" / asset_id / "norm_stats.json"
    stats = read_norm_stats(path)
    width = stats[name].dimension
    narrow = {field.name: getattr(stats[name], field.name)[:3] for field in dataclasses.fields(stats[name])}
    for entry, found in ((dataclasses.replace(stats[name], **narrow), "3 dimensions"), (None, "no entry")):
        changed = {key: value for key, value in {**stats, name: entry}.items() if value is not None}
        write_norm_stats(path, changed)
        assert refusal(step, spec=libero_spec, tokenizer=tiny_tokenizer) == (
            f"The norm stats in {step}/assets/{asset_id} have {found} for {name!r}, but the spec has {width}. "
            "They belong to another policy."
        )


def test_actions_leave_in_the_units_that_the_norm_stats_were_taken_in(remade, libero_recorded, tiny_steps, tiny_pi05):
    """A model that answers zeros answers the middle between the quantiles."""
    stats = read_norm_stats(tiny_steps["pi05"] / "assets/physical-intelligence/libero/norm_stats.json")["actions"]
    middle = unnormalize(np.zeros(7), stats, "quantile")
    np.testing.assert_allclose(middle, (stats.q01 + stats.q99) / 2, atol=1e-6)
    policy = remade(params=jax.tree.map(np.zeros_like, tiny_pi05.params))
    row = policy.transform(observation_of(libero_recorded, "a224"))
    actions = policy.infer_rows([row], np.zeros((1, 20, 32), np.float32))[0]
    np.testing.assert_allclose(actions, np.broadcast_to(middle, (20, 7)), atol=1e-6)
