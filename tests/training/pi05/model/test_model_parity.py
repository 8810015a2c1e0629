"""The models compute what openpi computes: its own numbers, from its own weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.pi05.model.flow import denoise, flow_loss, flow_loss_at
from training.pi05.model.params import flatten


def cosine(a, b):
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def sample(tiny, inputs, steps):
    return jax.jit(lambda params, x: denoise(tiny.model, params, x, tiny.recorded["in/noise"], steps))(
        tiny.params, inputs
    )


def loss_at(tiny, params, noise, time):
    return flow_loss_at(tiny.model, params, tiny.inputs, tiny.recorded["in/actions"], noise, jnp.asarray(time))


@pytest.fixture(scope="module")
def ten_steps(tiny):
    return np.asarray(sample(tiny, tiny.inputs, 10))


def test_the_velocity_is_openpis(tiny):
    at = tiny.recorded
    velocity = jax.jit(tiny.model.apply)({"params": tiny.params}, tiny.inputs, at["in/x_t"], at["in/time"])
    np.testing.assert_allclose(velocity, at["f32/v_t"], atol=1e-4)


def test_the_prefix_is_image_tokens_in_openpis_order_and_then_the_prompt(tiny):
    tokens, valid = tiny.model.apply({"params": tiny.params}, tiny.inputs, method=tiny.model.embed_prefix)
    np.testing.assert_allclose(tokens, tiny.recorded["f32/embed_prefix/tokens"], atol=1e-5)
    np.testing.assert_array_equal(valid, tiny.recorded["f32/embed_prefix/input_mask"])


def test_the_suffix_is_openpis(tiny):
    at = tiny.recorded
    tokens, starts_block, conditioning = tiny.model.apply(
        {"params": tiny.params}, at["in/state"], at["in/x_t"], at["in/time"], method=tiny.model.embed_suffix
    )
    np.testing.assert_allclose(tokens, at["f32/embed_suffix/tokens"], atol=1e-5)
    np.testing.assert_array_equal(starts_block, at["f32/embed_suffix/ar_mask"])
    if tiny.family == "pi05":
        np.testing.assert_allclose(conditioning, at["f32/embed_suffix/adarms_cond"], atol=1e-5)
    else:
        assert conditioning is None


def test_the_loss_at_given_noise_and_time_is_openpis(tiny):
    noise, time = tiny.recorded["in/noise"], tiny.recorded["in/time"]
    squared = jax.jit(lambda params: loss_at(tiny, params, noise, time))(tiny.params)
    np.testing.assert_allclose(squared.mean(-1), tiny.recorded["f32/loss_given"], atol=1e-4)


def test_the_same_key_draws_openpis_noise_and_times(tiny):
    key = jax.random.wrap_key_data(tiny.recorded["in/loss_key_data"])
    squared = jax.jit(lambda params: flow_loss(tiny.model, params, key, tiny.inputs, tiny.recorded["in/actions"]))(
        tiny.params
    )
    np.testing.assert_allclose(squared.mean(-1), tiny.recorded["f32/compute_loss"], atol=1e-4)


@pytest.mark.parametrize("steps", [1, 4])
def test_few_denoising_steps_give_openpis_actions(tiny, steps):
    actions = sample(tiny, tiny.inputs, steps)
    np.testing.assert_allclose(actions, tiny.recorded[f"f32/sample_actions_{steps}"], atol=1e-4)


def test_ten_denoising_steps_give_openpis_actions(tiny, ten_steps):
    np.testing.assert_allclose(ten_steps, tiny.recorded["f32/sample_actions_10"], atol=1e-4)


def test_leaving_out_a_camera_that_nobody_has_changes_nothing(tiny, ten_steps):
    two_cameras = sample(tiny, tiny.inputs_of("base_0_rgb", "left_wrist_0_rgb"), 10)
    np.testing.assert_allclose(two_cameras, ten_steps, atol=1e-5)


def test_padding_the_prompt_to_another_length_changes_nothing(tiny, ten_steps):
    shorter = tiny.inputs_of("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb", prompt=32)
    assert shorter.token_mask.sum() == tiny.inputs.token_mask.sum()
    np.testing.assert_allclose(sample(tiny, shorter, 10), ten_steps, atol=1e-5)


def test_the_cached_prefix_gives_the_velocity_of_the_full_pass(tiny):
    at, model, inputs = tiny.recorded, tiny.model, tiny.inputs

    @jax.jit
    def cached(variables):
        prefix = model.apply(variables, inputs, method=model.prefill)
        return model.apply(variables, prefix, inputs.state, at["in/x_t"], at["in/time"], method=model.velocity)

    np.testing.assert_allclose(cached({"params": tiny.params}), at["f32/v_t"], atol=1e-4)


def test_every_gradient_is_openpis(tiny, openpi_data):
    noise, time = tiny.recorded["in/loss_noise"], tiny.recorded["in/loss_time"]
    mean_loss = jax.jit(jax.value_and_grad(lambda params: loss_at(tiny, params, noise, time).mean()))
    loss, gradients = mean_loss(tiny.params)
    with np.load(openpi_data / f"tiny_{tiny.family}_grads_f32.npz") as recorded:
        expected = dict(recorded)
    np.testing.assert_allclose(loss, expected.pop("loss"), rtol=1e-5)
    found = flatten(gradients)
    assert found.keys() == expected.keys()
    for path, gradient in expected.items():
        # The keys' bias has no gradient in exact arithmetic: what is recorded of it is rounding, below 1e-7.
        tolerance = 1e-4 * np.abs(gradient).max() + 1e-7
        np.testing.assert_allclose(found[path], gradient, rtol=1e-3, atol=tolerance, err_msg=path)
    # Weights that the output ignores would prove nothing: only the last prefix layer's output goes nowhere.
    assert {path for path, gradient in found.items() if not np.any(gradient)} == {"PaliGemma/llm/final_norm/scale"}


def test_in_bfloat16_velocity_and_actions_follow_openpis(tiny_bf16):
    at, variables = tiny_bf16.recorded, {"params": tiny_bf16.params}
    velocity = jax.jit(tiny_bf16.model.apply)(variables, tiny_bf16.inputs, at["in/x_t"], at["in/time"])
    assert cosine(velocity, at["bf16/v_t"]) >= 0.999
    assert cosine(sample(tiny_bf16, tiny_bf16.inputs, 10), at["bf16/sample_actions_10"]) >= 0.999
