"""openpi's released policies: what is known of them, and how they are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy_protocol.errors import SpecInvalid
from policy_protocol.spec import PolicySpec
from training.pi05.load import load_policy
from training.pi05.model.config import SLOTS, preset
from training.pi05.model.params import count_params, param_shapes
from training.pi05.released import RELEASED, find_spec, released_policy
from training.pi05.transforms.tokenizer import Tokenizer

FACTS = {  # family, horizon, state, actions, asset id, state in the prompt, longest prompt
    "pi05_libero": ("pi05", 10, 8, 7, "physical-intelligence/libero", False, 200),
    "pi05_droid": ("pi05", 15, 8, 8, "droid", True, 200),
    "pi0_libero": ("pi0", 50, 8, 7, "physical-intelligence/libero", False, 48),
    "pi0_droid": ("pi0", 10, 8, 8, "droid", False, 48),
    "pi0_aloha_sim": ("pi0", 50, 14, 14, "lerobot/aloha_sim_transfer_cube_human", False, 48),
}


def facts_of(spec):
    policy, observation = spec.policy, spec.observation
    return (
        policy.family,
        policy.action_horizon,
        observation.state.dimension,
        spec.action.dimension,
        policy.asset_id,
        observation.prompt.includes_state,
        observation.prompt.max_tokens,
    )


def test_each_policy_has_the_facts_of_openpis_config():
    assert {name: facts_of(released.spec) for name, released in RELEASED.items()} == FACTS


@pytest.mark.parametrize("name", FACTS)
def test_what_follows_from_the_family(name):
    spec = released_policy(name).spec
    model = preset(spec.policy.family)
    assert spec.policy.parameter_count == count_params(param_shapes(model))
    assert spec.policy.normalization == {"pi0": "zscore", "pi05": "quantile"}[spec.policy.family]
    assert spec.observation.prompt.max_tokens == model.max_token_len
    assert {camera.slot for camera in spec.observation.cameras} <= set(SLOTS)


def test_only_pi0_libero_predicts_relative_actions_and_only_of_the_arm():
    masks = {name: released.spec.action.delta_mask for name, released in RELEASED.items()}
    assert masks.pop("pi0_libero") == (True,) * 6 + (False,)
    assert not any(masks.values())


def test_only_alohas_state_and_actions_are_converted_and_only_it_has_a_prompt_of_its_own():
    robots = {name: released.spec.policy.robot for name, released in RELEASED.items()}
    defaults = {name: released.spec.observation.prompt.default for name, released in RELEASED.items()}
    assert (robots.pop("pi0_aloha_sim"), defaults.pop("pi0_aloha_sim")) == ("aloha", "Transfer cube")
    assert set(robots.values()) == {"none"}
    assert set(defaults.values()) == {""}


@pytest.mark.parametrize("name", FACTS)
def test_a_released_spec_survives_json_and_names_its_checkpoint_and_tokenizer(name):
    released = released_policy(name)
    assert PolicySpec.from_json(released.spec.to_json()) == released.spec
    assert released.checkpoint == f"gs://openpi-assets/checkpoints/{name}"
    assert released.spec.observation.prompt.tokenizer == "paligemma"


def test_a_released_policys_tokenizer_is_downloaded_from_where_openpi_has_it(monkeypatch, tiny_tokenizer):
    fetched = []

    def fetch(source):
        fetched.append(source)
        return Path(tiny_tokenizer)

    monkeypatch.setattr("training.pi05.transforms.tokenizer.cached_file", fetch)
    tokenizer = Tokenizer.load(released_policy("pi05_libero").spec.observation.prompt.tokenizer)
    assert fetched == ["gs://big_vision/paligemma_tokenizer.model"]
    assert tokenizer.vocabulary == 512


def test_a_spec_is_found_by_name_by_file_and_as_itself(tmp_path):
    spec = released_policy("pi05_droid").spec
    path = tmp_path / "droid.json"
    path.write_text(spec.to_json())
    assert find_spec("pi05_droid") == find_spec(path) == find_spec(str(path)) == find_spec(spec) == spec


def refusal(source):
    with pytest.raises(SpecInvalid) as error:
        find_spec(source)
    return error.value.message


def test_an_unknown_name_offers_the_closest_and_lists_them_all():
    built_in = (
        "Built in: pi05_libero, pi05_droid, pi0_libero, pi0_droid, pi0_aloha_sim. "
        "--spec takes one of these names or a policy_spec.json."
    )
    assert refusal("pi05_libro") == (
        "There is no policy spec 'pi05_libro', neither built in nor as a file. Did you mean 'pi05_libero'? " + built_in
    )
    assert refusal("gr00t").endswith(built_in)


def test_a_file_that_is_not_there_is_named():
    assert (
        refusal("specs/libero.json") == "The policy spec specs/libero.json cannot be read: No such file or directory."
    )


def test_a_checkpoint_is_loaded_by_the_policys_name(tiny_steps, tiny_tokenizer):
    """The tiny checkpoint lies under LIBERO's asset id, so the built-in spec serves it as it is."""
    policy = load_policy(tiny_steps["pi05"], spec="pi05_libero", tokenizer=tiny_tokenizer)
    assert policy.noise_shape == (10, 32)
    assert policy.spec == released_policy("pi05_libero").spec
