"""A checkpoint as a policy: raw observations in, actions in physical units out."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file, save_file

from policy_protocol.errors import InternalError, SpecInvalid
from policy_protocol.spec import StateField, StateSpec
from training.pi05.checkpoint.step_directory import CheckpointInvalid, read_assets
from training.pi05.checkpoint.weights import as_saved, read_params
from training.pi05.load import load_policy
from training.pi05.model.lora import is_lora, merge_lora
from training.pi05.model.params import ParamsMismatch, flatten, param_shapes, unflatten
from training.pi05.policy import Policy, noise_from_seed
from training.pi05.transforms.normalization import NormStats, read_norm_stats, write_norm_stats
from training.pi05.transforms.tokenizer import TOKENIZERS, TokenizerInvalid


def recorded(openpi_data, family):
    with np.load(openpi_data / f"tiny_{family}_policy.npz") as arrays:
        return dict(arrays)


def part_of(arrays, prefix):
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def observation_of(arrays, case):
    """As openpi's client sends it: ALOHA's images in a map of their own."""
    raw = part_of(arrays, f"obs|{case}|")
    images = part_of(raw, "images|")
    flat = {key: value for key, value in raw.items() if not key.startswith("images|")}
    return {**flat, "images": images} if images else flat


@pytest.fixture(scope="module")
def libero(tiny_steps, libero_spec, tiny_tokenizer):
    return load_policy(tiny_steps["pi05"], spec=libero_spec, tokenizer=tiny_tokenizer, dtype="float32")


@pytest.fixture(scope="module")
def libero_recorded(openpi_data):
    return recorded(openpi_data, "pi05")


def actions_of(policy, observations, noise, pad_to=None):
    rows = [policy.transform(observation) for observation in observations]
    return policy.launch(rows, np.stack([noise] * len(rows)), pad_to).actions()


@pytest.fixture(scope="module")
def aloha(tiny_steps, aloha_spec, tiny_tokenizer):
    return load_policy(tiny_steps["pi0"], spec=aloha_spec, tokenizer=tiny_tokenizer, dtype="float32")


@pytest.fixture(scope="module")
def aloha_recorded(openpi_data):
    return recorded(openpi_data, "pi0")


CASES = [("libero", "a224"), ("libero", "b_96"), ("aloha", "a224"), ("aloha", "b_96"), ("aloha", "c_noprompt")]


@pytest.mark.parametrize(("robot", "case"), CASES)
def test_what_the_model_sees_of_a_request_is_openpis(request, robot, case):
    policy, arrays = request.getfixturevalue(robot), request.getfixturevalue(f"{robot}_recorded")
    row = policy.transform(observation_of(arrays, case))
    expected = part_of(arrays, f"transformed|{case}|")
    np.testing.assert_allclose(row.state, expected["state"], rtol=1e-6, atol=1e-6)
    ids = expected["tokenized_prompt"]
    np.testing.assert_array_equal(row.tokens, ids[: len(row.tokens)])
    assert not np.any(ids[len(row.tokens) :])
    seen = {slot: bool(mask) for slot, mask in part_of(expected, "image_mask|").items()}
    assert {slot: row.image_masks.get(slot, False) for slot in seen} == seen  # a camera that is not there is left out
    for slot, every_fourth in part_of(expected, "image|").items():
        np.testing.assert_array_equal(row.images[slot][::4, ::4], every_fourth)


@pytest.mark.parametrize(("robot", "case"), CASES)
def test_actions_are_openpis_end_to_end(request, robot, case):
    policy, arrays = request.getfixturevalue(robot), request.getfixturevalue(f"{robot}_recorded")
    actions = actions_of(policy, [observation_of(arrays, case)], arrays["noise"])[0]
    np.testing.assert_allclose(actions, arrays[f"f32|{case}|actions"], atol=1e-4)
    assert actions.dtype == np.float64


@pytest.mark.parametrize("robot", ["libero", "aloha"])
@pytest.mark.parametrize("draw", ["0", "1"])
def test_actions_from_the_noise_that_openpi_drew_are_its_actions(request, robot, draw):
    policy, arrays = request.getfixturevalue(robot), request.getfixturevalue(f"{robot}_recorded")
    actions = actions_of(policy, [observation_of(arrays, "a224")], arrays[f"rng_noise|{draw}"])[0]
    np.testing.assert_allclose(actions, arrays[f"f32|rng{draw}|actions"], atol=1e-4)


@pytest.mark.parametrize("robot", ["libero", "aloha"])
def test_actions_in_bfloat16_are_openpis(request, robot, tiny_steps, tiny_tokenizer):
    """As openpi serves: weights and compute in bfloat16."""
    arrays, spec = request.getfixturevalue(f"{robot}_recorded"), request.getfixturevalue(f"{robot}_spec")
    step = tiny_steps[spec.policy.family]
    policy = load_policy(step, spec=spec, tokenizer=tiny_tokenizer, dtype="bfloat16")
    runs = [(case, case, arrays["noise"]) for name, case in CASES if name == robot]
    runs += [(f"rng{draw}", "a224", arrays[f"rng_noise|{draw}"]) for draw in "01"]
    for run, case, noise in runs:
        actions, expected = (
            actions_of(policy, [observation_of(arrays, case)], noise)[0],
            arrays[f"bf16|{run}|actions"],
        )
        cosine = np.sum(actions * expected) / (np.linalg.norm(actions) * np.linalg.norm(expected))
        assert cosine >= 0.999, run


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


def test_a_reply_says_how_long_it_took(libero, libero_recorded):
    timing = libero(observation_of(libero_recorded, "b_96"), noise_seed=0).timing
    assert 0 < timing["infer_ms"] < timing["total_ms"]


def test_the_parameters_are_counted(libero, tiny_pi05):
    assert libero.parameter_count == sum(leaf.size for leaf in jax.tree.leaves(tiny_pi05.params))


def test_weights_that_give_nan_raise_an_internal_error(
    libero_recorded, tiny_pi05, tiny_steps, libero_spec, tiny_tokenizer
):
    broken = {path: np.full_like(leaf, np.nan) for path, leaf in flatten(tiny_pi05.params).items()}
    one_step = dataclasses.replace(libero_spec, policy=dataclasses.replace(libero_spec.policy, denoising_steps=1))
    assets = read_assets(tiny_steps["pi05"], spec=one_step, tokenizer=tiny_tokenizer)
    policy = Policy(tiny_pi05.config, broken, assets)
    with pytest.raises(InternalError) as error:
        policy(observation_of(libero_recorded, "a224"), noise_seed=0)
    assert error.value.message == "The model produced NaN or infinite actions; the weights are probably damaged."


def refusal(*arguments, **keywords):
    with pytest.raises(CheckpointInvalid) as error:
        load_policy(*arguments, **keywords)
    return error.value.message


def test_a_tokenizer_with_more_pieces_than_the_model_embeds_is_refused(tiny_steps, libero_spec):
    with pytest.raises(TokenizerInvalid) as error:
        load_policy(tiny_steps["pi05"], spec=libero_spec, tokenizer=TOKENIZERS["small"])
    assert error.value.message.startswith("The tokenizer has 768 pieces but the model embeds 512. Serve these weights")


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


def test_a_state_wider_than_the_model_is_refused(tmp_path, tiny_steps, libero_spec, tiny_tokenizer):
    step = shutil.copytree(tiny_steps["pi05"], tmp_path / "100")
    path = step / "assets/physical-intelligence/libero/norm_stats.json"
    wide = NormStats(np.zeros(40), np.ones(40), -np.ones(40), np.ones(40))
    write_norm_stats(path, {**read_norm_stats(path), "state": wide})
    state = StateSpec("observation/state", (StateField("everything", "", 0, 40),))
    spec = dataclasses.replace(libero_spec, observation=dataclasses.replace(libero_spec.observation, state=state))
    with pytest.raises(SpecInvalid) as error:
        load_policy(step, spec=spec, tokenizer=tiny_tokenizer)
    assert error.value.message == (
        "The spec's state has 40 dimensions but the model holds 32. Take the spec that belongs to these weights "
        "(--spec), or train with a larger model.action_dim."
    )


@pytest.fixture
def changed_step(tmp_path, tiny_steps):
    """Writes tiny_pi05's step with its flat parameters changed."""

    def write(change):
        step = tmp_path / "100"
        shutil.copytree(tiny_steps["pi05"] / "assets", step / "assets")
        flat = dict(read_params(tiny_steps["pi05"]))
        change(flat)
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save((step / "params").absolute(), as_saved(unflatten(flat)))
        return step

    return write


@pytest.mark.parametrize(
    "path", ["time_mlp_in/kernel", "PaliGemma/llm/final_norm_1/Dense_0/bias", "action_in_proj/bias"]
)
def test_weights_that_are_no_numbers_are_refused_at_load(changed_step, libero_spec, tiny_tokenizer, path):
    step = changed_step(lambda flat: flat.update({path: np.full_like(flat[path], np.nan)}))
    message = refusal(step, spec=libero_spec, tokenizer=tiny_tokenizer)
    assert message == f"The weights in {step} hold NaN or infinity in {path}. Use another step."


_FACTOR = "PaliGemma/llm/layers/mlp/linear_lora_b"


def with_factors(flat, config):
    language, expert = (dataclasses.replace(part, lora_rank=2) for part in (config.language, config.expert))
    draw = np.random.default_rng(0)
    for path, leaf in param_shapes(dataclasses.replace(config, language=language, expert=expert)).items():
        if is_lora(path):
            flat[path] = draw.normal(0, 0.1, leaf.shape).astype(np.float32)


def test_a_lora_checkpoint_is_served_merged(changed_step, tiny_pi05, libero_spec, tiny_tokenizer, libero_recorded):
    step = changed_step(lambda flat: with_factors(flat, tiny_pi05.config))
    one_step = dataclasses.replace(libero_spec, policy=dataclasses.replace(libero_spec.policy, denoising_steps=1))
    policy = load_policy(step, spec=one_step, tokenizer=tiny_tokenizer, dtype="float32")
    merged = merge_lora(read_params(step))
    plain = Policy(tiny_pi05.config, merged, read_assets(step, spec=one_step, tokenizer=tiny_tokenizer))
    observation = observation_of(libero_recorded, "b_96")
    np.testing.assert_allclose(
        policy(observation, noise_seed=0).actions, plain(observation, noise_seed=0).actions, atol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda flat: flat.pop(_FACTOR), f"1 missing: {_FACTOR}."),
        (lambda flat: flat.pop("PaliGemma/llm/layers/mlp/linear"), "1 missing: PaliGemma/llm/layers/mlp/linear."),
        (
            lambda flat: flat.update({_FACTOR: flat[_FACTOR][..., :1]}),
            f"1 of the wrong shape: {_FACTOR} is (3, 2, 1), expected (3, 2, 64).",
        ),
        (lambda flat: flat.update({"time_mlp_in/lora_b": np.zeros((2, 2))}), "1 unexpected: time_mlp_in/lora_b."),
    ],
)
def test_a_wrong_lora_leaf_is_named(changed_step, tiny_pi05, libero_spec, tiny_tokenizer, change, expected):
    def write(flat):
        with_factors(flat, tiny_pi05.config)
        change(flat)

    with pytest.raises(ParamsMismatch) as error:
        load_policy(changed_step(write), spec=libero_spec, tokenizer=tiny_tokenizer)
    assert expected in error.value.message


def test_a_step_with_pytorch_weights_is_served(tmp_path, tiny_steps, libero_spec, tiny_tokenizer, libero_recorded):
    """LeRobot's recorded weights, their embedding widened to the tokenizer's pieces, beside openpi's assets."""
    shutil.copytree(tiny_steps["pi05"] / "assets", tmp_path / "assets")
    tensors = load_file(Path(__file__).parents[2] / "data/pytorch/lerobot_pi05/model.safetensors")
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and len(tensor) == 64 and name.endswith(("embed_tokens.weight", "lm_head.weight")):
            tensors[name] = np.resize(tensor, (512, tensor.shape[1]))
    save_file(tensors, tmp_path / "model.safetensors")
    spec = dataclasses.replace(libero_spec, policy=dataclasses.replace(libero_spec.policy, denoising_steps=1))
    policy = load_policy(tmp_path, spec=spec, tokenizer=tiny_tokenizer, dtype="float32")
    observation = observation_of(libero_recorded, "b_96")
    first, again = (policy(observation, noise_seed=0).actions for _ in range(2))
    assert first.shape == (20, 7)
    np.testing.assert_array_equal(first, again)
    black = {key: np.zeros_like(value) if "image" in key else value for key, value in observation.items()}
    assert np.abs(policy(black, noise_seed=0).actions - first).max() > 1e-6
