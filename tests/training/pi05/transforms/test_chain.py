"""Vectors to the model and back: every step and every chain undoes what it did, and does what openpi does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policy_protocol.errors import SpecInvalid
from training.pi05.released import RELEASED, released_policy
from training.pi05.transforms.chain import Chain, DeltaActions, Normalize, Pad
from training.pi05.transforms.normalization import NormStats, NormStatsInvalid
from training.pi05.transforms.pipeline import action_chain, state_chain
from training.pi05.transforms.robots import AlohaActions, AlohaState

KINDS = st.sampled_from(["quantile", "zscore"])
NUMBERS = st.floats(-10, 10)
QUICK = settings(max_examples=30, deadline=None)


def vectors(*shape):
    return arrays(np.float64, shape, elements=NUMBERS)


@st.composite
def statistics(draw, width):
    """Statistics of a vector whose dimensions may all differ, and some of which may never move."""
    spread = arrays(np.float64, width, elements=st.just(0.0) | st.floats(0.01, 10))
    q01 = draw(vectors(width))
    return NormStats(draw(vectors(width)), draw(spread), q01, q01 + draw(spread))


@st.composite
def deltas_in(draw):
    """A width, a mask of at most it, and how many chunks of how many steps."""
    width = draw(st.integers(1, 16))
    mask = draw(st.lists(st.booleans(), max_size=width))
    return width, tuple(mask), draw(st.integers(1, 3)), draw(st.integers(1, 4))


def assert_undone(transform, x, state=None):
    np.testing.assert_allclose(transform.inverse(transform(x, state), state), x, rtol=1e-9, atol=1e-9)


@QUICK
@given(st.data(), deltas_in())
def test_deltas_are_undone(data, drawn):
    width, mask, batch, steps = drawn
    state, actions = data.draw(vectors(batch, width)), data.draw(vectors(batch, steps, width))
    before = actions.copy()
    assert_undone(DeltaActions(mask), actions, state)
    np.testing.assert_array_equal(actions, before)


@QUICK
@given(st.data(), KINDS, st.integers(1, 16), st.integers(0, 4))
def test_normalisation_is_undone_also_with_statistics_wider_than_the_vector(data, kind, width, wider):
    stats = data.draw(statistics(width + wider))
    assert_undone(Normalize(stats, kind), data.draw(vectors(3, width)))


@QUICK
@given(st.data(), st.integers(1, 16), st.integers(0, 16))
def test_padding_is_undone_and_is_zeros(data, width, more):
    x = data.draw(vectors(2, 3, width))
    pad = Pad(width, width + more)
    assert pad(x).shape == (2, 3, width + more)
    assert not np.any(pad(x)[..., width:])
    np.testing.assert_array_equal(pad.inverse(pad(x)), x)


@QUICK
@given(vectors(4, 14))
def test_alohas_actions_are_undone(actions):
    assert_undone(AlohaActions(), actions)


@QUICK
@given(vectors(14), st.floats(-0.1, 0.99), st.floats(-0.1, 0.99))
def test_alohas_state_is_undone_wherever_the_crank_can_be(state, left, right):
    state[[6, 13]] = left, right
    assert_undone(AlohaState(), state)


@QUICK
@given(st.data(), st.sampled_from(sorted(RELEASED)), st.lists(st.booleans(), max_size=7))
def test_the_whole_way_of_actions_is_undone(data, name, mask):
    spec = released_policy(name).spec
    spec = dataclasses.replace(spec, action=dataclasses.replace(spec.action, delta_mask=tuple(mask)))
    width = spec.action.dimension
    stats = {key: data.draw(statistics(width)) for key in ("state", "actions")}
    state, actions = data.draw(vectors(2, spec.observation.state.dimension)), data.draw(vectors(2, 3, width))
    assert action_chain(spec, stats, 32)(actions, state).shape == (2, 3, 32)
    assert_undone(action_chain(spec, stats, 32), actions, state)


@QUICK
@given(st.data(), st.sampled_from(["pi05_libero", "pi05_droid", "pi0_droid"]))
def test_the_whole_way_of_the_state_is_undone(data, name):
    spec = released_policy(name).spec
    chain = state_chain(spec, {"state": data.draw(statistics(8))}, 32)
    state = data.draw(vectors(8))
    assert_undone(chain, state)
    converted, normalized, padded = chain.stages(state)
    assert (converted.shape, normalized.shape, padded.shape) == ((8,), (8,), (32,))
    np.testing.assert_array_equal(padded, chain(state))


def test_a_chain_of_no_steps_changes_nothing():
    x = np.ones(3)
    assert Chain(())(x) is x
    assert Chain(()).inverse(x) is x


@pytest.mark.parametrize("mask", ["6_-1", "6_-1_short", "2_-2_2"])
def test_deltas_are_openpis(openpi_data, mask):
    with np.load(openpi_data / "transforms.npz") as recorded:
        deltas = DeltaActions(tuple(recorded[f"delta/{mask}/mask"].tolist()))
        state, actions = recorded["in/state"], recorded["in/actions"]
        np.testing.assert_allclose(deltas(actions, state), recorded[f"delta/{mask}/delta"], atol=1e-12)
        np.testing.assert_allclose(deltas.inverse(actions, state), recorded[f"delta/{mask}/absolute"], atol=1e-12)


def test_padding_is_openpis(openpi_data):
    with np.load(openpi_data / "transforms.npz") as recorded:
        np.testing.assert_array_equal(Pad(7, 12)(recorded["in/actions"]), recorded["pad_to_dim/out"])


def test_alohas_conversions_are_openpis(openpi_data):
    with np.load(openpi_data / "policy_transforms.npz") as recorded:
        pi = {key.removeprefix("aloha/True/"): value for key, value in recorded.items() if "aloha/True/" in key}
    np.testing.assert_allclose(AlohaState()(pi["in|state"]), pi["out|state"], atol=1e-12)
    np.testing.assert_allclose(AlohaActions()(pi["in|actions"]), pi["out|actions"], atol=1e-12)
    np.testing.assert_allclose(AlohaActions().inverse(pi["in|actions"]), pi["enc_actions"], atol=1e-12)


def test_another_robot_is_left_as_it_is(openpi_data):
    spec = released_policy("pi0_aloha_sim").spec
    plain = dataclasses.replace(spec, policy=dataclasses.replace(spec.policy, robot="none"))
    unit = NormStats(np.zeros(14), np.ones(14) - 1e-6, np.zeros(14), np.ones(14))
    with np.load(openpi_data / "policy_transforms.npz") as recorded:
        for way, given_ in (
            ("state", recorded["aloha/False/in|state"]),
            ("actions", recorded["aloha/False/in|actions"]),
        ):
            chain = {"state": state_chain, "actions": action_chain}[way](plain, {way: unit}, 14)
            np.testing.assert_allclose(chain(given_), recorded[f"aloha/False/out|{way}"], atol=1e-12)
        plain_actions = action_chain(plain, {"actions": unit}, 14).inverse(recorded["aloha/False/in|actions"])
        np.testing.assert_allclose(plain_actions, recorded["aloha/False/enc_actions"], atol=1e-12)


def test_a_robot_that_cannot_be_in_a_position_is_taken_at_the_end_of_its_way():
    state = np.zeros(14)
    state[[6, 13]] = -0.3, 1.5
    at_the_ends = state.copy()
    at_the_ends[[6, 13]] = (0.014 - 0.01844) / 0.03956, (0.058 - 0.01844) / 0.03956
    np.testing.assert_allclose(AlohaState()(state), AlohaState()(at_the_ends), atol=1e-6)


@pytest.mark.parametrize("way", ["state", "actions"])
def test_a_quantile_policy_with_statistics_for_zscores_alone_is_refused(way):
    chain = {"state": state_chain, "actions": action_chain}[way]
    stats = {way: NormStats(np.zeros(8), np.ones(8), None, None)}
    with pytest.raises(NormStatsInvalid) as error:
        chain(released_policy("pi05_droid").spec, stats, 32)
    assert error.value.message == (
        f"The norm stats have no quantiles (q01, q99) for {way!r}, but the policy normalises by quantiles. "
        "They were taken for z-scores alone: compute those of its dataset with train stats DATASET."
    )
    assert chain(released_policy("pi0_droid").spec, stats, 32)(np.ones(8)).shape == (32,)


@pytest.mark.parametrize(("way", "name"), [("state", "state"), ("actions", "action")])
def test_a_vector_wider_than_the_model_is_refused(way, name):
    chain = {"state": state_chain, "actions": action_chain}[way]
    unit = NormStats(np.zeros(14), np.ones(14), np.zeros(14), np.ones(14))
    with pytest.raises(SpecInvalid) as error:
        chain(released_policy("pi0_aloha_sim").spec, {way: unit}, 8)
    assert error.value.message == (
        f"The spec's {name} has 14 dimensions but the model holds 8. Take the spec that belongs to these weights "
        "(--spec), or train with a larger model.action_dim."
    )
