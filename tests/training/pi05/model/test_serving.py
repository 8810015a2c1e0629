"""The form that serves computes what the checkpoint's form computes, and less of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.pi05.model.attention import attend
from training.pi05.model.flow import denoise, denoising_times
from training.pi05.model.params import flatten
from training.pi05.model.pi import PiModel
from training.pi05.model.serving import serving_params, unroll


def served_actions(tiny, steps, kernel="plain", inputs=None):
    network, weights = PiModel(tiny.config, unrolled=True, kernel=kernel), serving(tiny, steps)
    run = jax.jit(lambda w, inputs, noise: denoise(network, w.params, inputs, noise, steps, w.modulations))
    return run(weights, tiny.inputs if inputs is None else inputs, tiny.recorded["in/noise"])


def serving(tiny, steps):
    return serving_params(tiny.config, flatten(tiny.params), steps)


@pytest.fixture(scope="module")
def four_steps(tiny):
    return np.asarray(served_actions(tiny, 4))


def test_the_served_form_gives_openpis_actions(tiny, four_steps):
    np.testing.assert_allclose(four_steps, tiny.recorded["f32/sample_actions_4"], atol=1e-4)


def test_the_served_form_gives_the_checkpoints_forms_actions(tiny, four_steps):
    noise = tiny.recorded["in/noise"]
    stacked = jax.jit(lambda params: denoise(tiny.model, params, tiny.inputs, noise, 4))(tiny.params)
    np.testing.assert_allclose(four_steps, stacked, atol=1e-5)


def test_without_the_absent_camera_and_with_a_shorter_prompt_the_served_form_gives_the_same_actions(tiny, four_steps):
    fewer = tiny.inputs_of("base_0_rgb", "left_wrist_0_rgb", prompt=32)
    np.testing.assert_allclose(served_actions(tiny, 4, inputs=fewer), four_steps, atol=1e-5)


def test_the_attention_of_jax_gives_the_same_actions(tiny_pi05):
    plain, library = (served_actions(tiny_pi05, 1, kernel) for kernel in ("plain", "xla"))
    np.testing.assert_allclose(library, plain, atol=1e-5)


def test_in_bfloat16_the_served_form_follows_openpi(tiny_bf16):
    served = np.ravel(served_actions(tiny_bf16, 10)).astype(np.float64)
    recorded = np.ravel(tiny_bf16.recorded["bf16/sample_actions_10"]).astype(np.float64)
    assert served @ recorded / np.linalg.norm(served) / np.linalg.norm(recorded) >= 0.999


def test_the_time_is_applied_at_load_and_its_weights_stay_behind(tiny_pi05):
    weights = serving(tiny_pi05, 10)
    held = flatten(weights.params)
    assert not [path for path in held if path.startswith("time_mlp") or ("Dense_0/kernel" in path and "norm_1" in path)]
    assert weights.modulations.pre_attention.shape == (10, 1, 3, 3 * 32)
    assert weights.modulations.final_norm.shape == (10, 1, 3 * 32)


def test_pi0_has_no_modulations_and_keeps_every_weight(tiny_pi0):
    weights = serving(tiny_pi0, 10)
    assert weights.modulations is None
    assert flatten(weights.params).keys() == unroll(flatten(tiny_pi0.params)).keys()


def test_every_stacked_leaf_is_split_into_its_layers(tiny_pi05):
    flat = flatten(tiny_pi05.params)
    unrolled = unroll(flat)
    kernel = "PaliGemma/img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel"
    split = [unrolled[kernel.replace("encoderblock", f"encoderblock_{index}")] for index in range(2)]
    np.testing.assert_array_equal(np.stack(split), flat[kernel])
    assert sum(leaf.size for leaf in unrolled.values()) == sum(leaf.size for leaf in flat.values())


def test_the_times_are_added_up_as_openpis_loop_adds_them():
    t, expected = np.float32(1.0), []
    for _ in range(10):
        expected.append(t)
        t = np.float32(t + np.float32(-0.1))
    np.testing.assert_array_equal(denoising_times(10), expected)
    np.testing.assert_array_equal(denoising_times(1), [1.0])


def flops(tiny, outputs):
    """Multiplications of the compiled prefix, when only these outputs are asked for."""
    network = PiModel(tiny.config, unrolled=True)

    def prefix(params, inputs):
        def run(module, inputs):
            tokens, valid = module.embed_prefix(inputs)
            positions = jnp.cumsum(valid, axis=1) - 1
            return module.PaliGemma.llm([tokens, None], positions, valid[:, None, :])

        return outputs(network.apply({"params": params}, inputs, method=run))

    compiled = jax.jit(prefix).lower(serving(tiny, 1).params, tiny.inputs).compile()
    return compiled.cost_analysis()["flops"]


def test_the_last_prefix_layer_computes_keys_and_values_only(tiny_pi05):
    everything = flops(tiny_pi05, lambda result: result)
    cache_only = flops(tiny_pi05, lambda result: result[1])
    c, inputs = tiny_pi05.config.language, tiny_pi05.inputs
    tokens = 3 * tiny_pi05.config.vision.tokens + inputs.tokens.shape[1]
    attention = 2 * tokens * c.heads * c.head_dim * (2 * c.width + 2 * tokens)  # q, out, logits, weighted sum
    feed_forward = 2 * tokens * 3 * c.width * c.mlp_width
    spared = len(inputs.state) * (attention + feed_forward)
    assert everything - cache_only == pytest.approx(spared, rel=0.1)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 1), (4, 2), (3, 3)])
def test_every_kernel_attends_alike(heads, kv_heads, rows):
    draw = np.random.default_rng(0)
    q = draw.normal(size=(2, 3, heads, 8)).astype(np.float32)
    k, v = (draw.normal(size=(2, 5, kv_heads, 8)).astype(np.float32) for _ in range(2))
    mask = draw.random((2, rows, 5)) < 0.6
    mask[..., 0] = True
    plain, library = (attend(q, k, v, mask, kernel) for kernel in ("plain", "xla"))
    np.testing.assert_allclose(library, plain, atol=1e-5)
    for head in range(heads):
        alone = attend(q[:, :, [head]], *(x[:, :, [head * kv_heads // heads]] for x in (k, v)), mask, "plain")
        np.testing.assert_allclose(plain[:, :, [head]], alone, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 16])
def test_cudnn_gets_one_row_of_the_mask_for_each_query(monkeypatch, rows):
    """cuDNN itself needs a GPU; what jax hands to it is traced here."""
    seen = {}

    def record(q, k, v, *, mask, **options):
        seen.update(mask=mask.shape, **options)
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", record)
    q, k = jnp.zeros((2, 16, 8, 64), jnp.bfloat16), jnp.zeros((2, 24, 1, 64), jnp.bfloat16)
    attend(q, k, k, jnp.ones((2, rows, 24), bool), "cudnn")
    assert seen == {"mask": (2, 1, 16, 24), "scale": 1.0, "implementation": "cudnn"}
