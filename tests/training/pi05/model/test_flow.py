"""Flow matching: the sampler follows a known flow, and each token sees what it may see."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.pi05.model.attention import attention_mask
from training.pi05.model.config import GemmaConfig, ModelConfig, SigLIPConfig
from training.pi05.model.flow import denoise, flow_loss_at, sample_time
from training.pi05.model.params import param_shapes, unflatten
from training.pi05.model.pi import ModelInput, PiModel


class KnownFlow:
    """The exact velocity from any noise to one target: (x - target) / t."""

    def __init__(self, target):
        self.target = target

    prefill = "prefill"
    velocity = "velocity"

    def apply(self, variables, *arguments, method):
        if method == self.prefill:
            return None
        x, t = arguments[2:4]
        return (x - self.target) / t[:, None, None]


@dataclasses.dataclass
class NoState:
    state: object = None


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_sampler_recovers_a_known_flow(steps):
    target = np.random.default_rng(0).standard_normal((2, 5, 3), np.float32)
    noise = np.random.default_rng(1).standard_normal((2, 5, 3), np.float32)
    np.testing.assert_allclose(denoise(KnownFlow(target), {}, NoState(), noise, steps), target, atol=1e-5)


class ConstantVelocity(KnownFlow):
    """One velocity everywhere."""

    def apply(self, variables, *arguments, method):
        return None if method == self.prefill else jnp.broadcast_to(self.target, arguments[2].shape)


def test_the_sampler_goes_from_t_1_to_t_0_against_the_velocity():
    noise = np.zeros((1, 2, 3), np.float32)
    actions = denoise(ConstantVelocity(jnp.float32(2.0)), {}, NoState(), noise, 7)
    np.testing.assert_allclose(actions, -2.0, rtol=1e-6)


def test_training_times_lie_between_a_thousandth_and_one_and_favour_noise():
    times = sample_time(jax.random.key(0), 20_000)
    assert 0.001 <= float(times.min()) < 0.01
    assert 0.99 < float(times.max()) <= 1.0
    assert float(times.mean()) == pytest.approx(0.6 * 0.999 + 0.001, abs=0.01)  # Beta(1.5, 1) has the mean 0.6


TINY_TOWER = SigLIPConfig(image_size=8, patch_size=4, width=8, depth=1, mlp_width=8, heads=2)
TINY_GEMMA = GemmaConfig(width=16, mlp_width=16, depth=2, heads=2, kv_heads=1, head_dim=8)
ACTIONS = np.random.default_rng(1).standard_normal((1, 5, 4), np.float32)
TIME = np.full(1, 0.5, np.float32)


@pytest.fixture(scope="module")
def random_models():
    """A model of each family of which every weight is random, so that everything that can see something does."""
    return {family: random_model(family) for family in ("pi05", "pi0")}


def random_model(family):
    config = ModelConfig(family, TINY_TOWER, TINY_GEMMA, TINY_GEMMA, 32, 4, 5, 6, dtype="float32", remat=False)
    rng = np.random.default_rng(0)
    flat = {path: 0.3 * rng.standard_normal(leaf.shape, np.float32) for path, leaf in param_shapes(config).items()}
    return PiModel(config), {"params": jax.tree.map(jnp.asarray, unflatten(flat))}


def batch(token_mask=(True,) * 6):
    rng = np.random.default_rng(0)
    inputs = ModelInput(
        images={"base_0_rgb": rng.integers(0, 256, (1, 8, 8, 3), np.uint8)},
        image_masks={"base_0_rgb": np.ones(1, bool)},
        tokens=rng.integers(0, 32, (1, 6)),
        token_mask=np.array([token_mask]),
        state=rng.standard_normal((1, 4), np.float32),
    )
    return jax.tree.map(jnp.asarray, inputs)


@pytest.mark.parametrize("family", ["pi05", "pi0"])
def test_every_action_of_a_chunk_sees_every_other(random_models, family):
    model, variables = random_models[family]
    jacobian = jax.jit(jax.jacobian(lambda x: model.apply(variables, batch(), x, TIME)))(ACTIONS)
    sees = np.abs(np.asarray(jacobian)).sum(axis=(0, 2, 3, 5))  # (velocity's step, action's step)
    assert np.all(sees > 1e-6)


@pytest.mark.parametrize("family", ["pi05", "pi0"])
def test_the_prefix_never_sees_the_suffix(random_models, family):
    """In a pass of both together, neither the prefix's output nor its keys and values move with the actions."""
    model, variables = random_models[family]

    def both(module, actions):
        tokens, valid = module.embed_prefix(batch())
        suffix, starts, conditioning = module.embed_suffix(batch().state, actions, TIME)
        every = jnp.concatenate([valid, jnp.ones(suffix.shape[:2], bool)], axis=1)
        blocks = jnp.concatenate([jnp.zeros(tokens.shape[1], bool), starts])
        mask, positions = attention_mask(every, blocks), jnp.cumsum(every, axis=1) - 1
        (prefix_out, suffix_out), cache = module.PaliGemma.llm([tokens, suffix], positions, mask, conditioning)
        return (prefix_out, *(part[:, :, : tokens.shape[1]] for part in cache)), suffix_out

    jacobian = jax.jit(jax.jacobian(lambda actions: model.apply(variables, actions, method=both)))
    prefix, suffix = jacobian(ACTIONS)
    assert not any(np.any(leaf) for leaf in prefix)
    assert np.any(suffix)


def test_pi0s_state_token_is_a_block_that_never_sees_the_actions(random_models):
    model, variables = random_models["pi0"]

    def suffix_alone(module, actions):
        tokens, starts, conditioning = module.embed_suffix(batch().state, actions, TIME)
        mask = attention_mask(jnp.ones(tokens.shape[:2], bool), starts)
        (_, out), _ = module.PaliGemma.llm([None, tokens], jnp.arange(6)[None], mask, conditioning)
        return out[:, 0], out[:, 1:]

    jacobian = jax.jit(jax.jacobian(lambda actions: model.apply(variables, actions, method=suffix_alone)))
    state, actions = jacobian(ACTIONS)
    assert not np.any(state)
    assert np.any(actions)


@pytest.mark.parametrize("family", ["pi05", "pi0"])
def test_actions_see_every_camera_and_every_real_prompt_token_and_no_padding(random_models, family):
    model, variables = random_models[family]
    velocity = jax.jit(lambda inputs: model.apply(variables, inputs, ACTIONS, TIME))
    mask = (True, True, True, True, False, False)
    inputs = batch(mask)
    before = velocity(inputs)
    for position, real in enumerate(mask):
        tokens = inputs.tokens.at[0, position].add(1) % 32
        assert np.any(velocity(inputs.replace(tokens=tokens)) != before) == real
    black = {"base_0_rgb": jnp.zeros_like(inputs.images["base_0_rgb"])}
    assert np.abs(velocity(inputs.replace(images=black)) - before).max() > 1e-4
    absent = inputs.replace(image_masks={"base_0_rgb": jnp.zeros(1, bool)})
    np.testing.assert_array_equal(velocity(absent), velocity(absent.replace(images=black)))


@pytest.mark.parametrize(("family", "reads"), [("pi0", True), ("pi05", False)])
def test_pi0_reads_the_state_and_pi05_does_not(random_models, family, reads):
    model, variables = random_models[family]

    @jax.jit
    @jax.grad
    def gradient(state):
        return jnp.sum(model.apply(variables, batch().replace(state=state), ACTIONS, TIME))

    assert np.all(np.abs(gradient(batch().state)) > 1e-7) == reads
    assert np.any(gradient(batch().state)) == reads


def test_the_loss_is_the_squared_distance_to_noise_minus_actions(random_models):
    model, variables = random_models["pi05"]
    noise, actions = np.random.default_rng(2).standard_normal((2, 1, 5, 4)).astype(np.float32)
    t = np.full(1, 0.25, np.float32)

    @jax.jit
    def both(variables):
        velocity = model.apply(variables, batch(), 0.25 * noise + 0.75 * actions, t)
        return velocity, flow_loss_at(model, variables["params"], batch(), actions, noise, jnp.asarray(t))

    velocity, squared = both(variables)
    np.testing.assert_allclose(squared, np.square(velocity - (noise - actions)), rtol=1e-4, atol=1e-5)
