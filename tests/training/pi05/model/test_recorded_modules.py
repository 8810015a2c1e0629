"""Every intermediate that openpi recorded, in each of its four precisions, from the pass that the product runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.pi05.model.flow import denoise, denoising_times, sample_time
from training.pi05.model.gemma import Gemma
from training.pi05.model.params import flatten, unflatten
from training.pi05.model.pi import PiModel
from training.pi05.model.serving import unroll
from training.pi05.model.siglip import SigLIP

QUICK = {"xla_cpu_use_fusion_emitters": False}
"""A third of the time in the compiler, where these tests spend theirs."""
PRECISIONS = {
    "f32": ("float32", "float32"),
    "bf16": ("bfloat16", "bfloat16"),  # as openpi serves
    "train": ("float32", "bfloat16"),  # as openpi trains
    "bf16p_f32": ("bfloat16", "float32"),
}
"""Type of the parameters, type of the computation."""


@pytest.fixture(scope="module")
def recorded(tiny, openpi_data):
    """Thinned: of what is long, every eighth or sixteenth token."""
    with np.load(openpi_data / f"tiny_{tiny.family}_modules.npz") as arrays:
        return {**tiny.recorded, **arrays}


@dataclasses.dataclass
class Run:
    """A family in one precision: the pass that training runs, watched, and the passes that sampling runs."""

    precision: str
    full: dict
    velocities: np.ndarray
    """Along the ten steps of the recorded trajectory, then at the two recorded losses."""
    prefix_cache: tuple
    four_steps: np.ndarray

    @property
    def exact(self):
        return self.precision == "f32"


def watched(model, variables, inputs, x_t, t):
    """The model's full pass, and what went into and out of its parts."""
    seen = {}

    def note(method, arguments, keywords, context):
        out = method(*arguments, **keywords)
        name = context.method_name
        if isinstance(context.module, PiModel) and name == "embed_prefix":
            seen["embed_prefix/tokens"], seen["embed_prefix/input_mask"] = out
        if isinstance(context.module, PiModel) and name == "embed_suffix":
            seen["embed_suffix/tokens"], _, seen["embed_suffix/adarms_cond"] = out
        if isinstance(context.module, SigLIP) and name == "__call__":
            seen["pixels"], seen["siglip"] = arguments[0], out
        if isinstance(context.module, Gemma) and name == "__call__":
            _, seen["positions"], seen["mask"], *_ = arguments
            (seen["prefix_out"], seen["suffix_out"]), seen["cache"] = out
        return out

    with nn.intercept_methods(note):
        seen["v_t"] = model.apply(variables, inputs, x_t, t)
    return seen


@pytest.fixture(scope="module", params=PRECISIONS)
def run(tiny, recorded, request):
    at, (held, computed) = recorded, PRECISIONS[request.param]
    model = PiModel(dataclasses.replace(tiny.config, dtype=computed, remat=False))
    noise, (loss_x, loss_t) = at["in/noise"], noisy_batches(at)
    x = np.concatenate([noise[None], trajectory(at, request.param)[:-1], loss_x])
    t = np.concatenate([np.repeat(denoising_times(10)[:, None], 2, axis=1), loss_t])

    def everything(params, inputs):
        variables = {"params": params}
        prefix = model.apply(variables, inputs, method=model.prefill)

        def velocity(_, step):
            return _, model.apply(variables, prefix, inputs.state, *step, method=model.velocity)

        velocities = jax.lax.scan(velocity, None, (x, t))[1]
        full = watched(model, variables, inputs, at["in/x_t"], at["in/time"])
        return full, velocities, prefix.cache, denoise(model, params, inputs, noise, 4)

    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, held), tiny.params)
    return Run(request.param, *jax.device_get(jax.jit(everything, compiler_options=QUICK)(params, tiny.inputs)))


def noisy_batches(at):
    """Noisy actions and times of the two recorded losses: noise and times given, and drawn from a key."""
    _, noise_key, time_key = jax.random.split(jax.random.wrap_key_data(at["in/loss_key_data"]), 3)
    noises = np.stack([at["in/noise"], jax.random.normal(noise_key, at["in/noise"].shape)])
    times = np.stack([at["in/time"], sample_time(time_key, 2)])
    share = times[..., None, None]
    return share * noises + (1 - share) * at["in/actions"], times


class RecordedFlow:
    """Gives the recorded velocities of the ten steps; row r of the batch comes to rest after step r."""

    prefill, velocity = "prefill", "velocity"

    def __init__(self, velocities, dtype):
        rows, steps = np.indices((10, 10))[..., None, None, None]
        self.velocities = jnp.asarray(np.where(steps <= rows, velocities, 0).swapaxes(0, 1), dtype)

    def apply(self, variables, *arguments, method):
        if method == self.prefill:
            return None
        step = jnp.argmin(jnp.abs(denoising_times(10) - arguments[3][0]))
        return self.velocities[step]


def trajectory(at, precision):
    """x after each of the ten steps: our own recurrence over openpi's velocities."""
    dtype = "bfloat16" if precision == "bf16" else "float32"
    flow = RecordedFlow(at[f"{precision}/traj_v"][None], dtype)
    rows = np.broadcast_to(at["in/noise"], (10, *at["in/noise"].shape))
    return np.asarray(denoise(flow, {}, NoState(), rows, 10))


@dataclasses.dataclass
class NoState:
    state: object = None


def cosine(ours, theirs):
    ours, theirs = (np.ravel(x).astype(np.float64) for x in (ours, theirs))
    return ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs))


def agree(run, ours, theirs, tolerance=1e-4):
    """Within the tolerance in float32; of the same direction where anything is bfloat16."""
    assert np.shape(ours) == np.shape(theirs)
    if run.exact:
        np.testing.assert_allclose(np.asarray(ours, np.float32), theirs, atol=tolerance)
    else:
        assert cosine(ours, theirs) >= 0.999


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_sampler_adds_up_its_steps_as_openpi_does(recorded, precision):
    """Bit for bit where the velocity is bfloat16; in float32 openpi's compiler rounded the sum once less."""
    np.testing.assert_array_equal(denoising_times(10), recorded["traj_t"])
    ours = trajectory(recorded, precision)
    tolerance = 0 if precision == "bf16" else 1e-6
    np.testing.assert_allclose(ours[..., ::4], recorded[f"{precision}/traj_x"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(ours[-1], recorded[f"{precision}/sample_actions_10"], rtol=0, atol=tolerance)


def test_at_each_step_of_a_trajectory_the_velocity_is_openpis(run, recorded):
    for ours, theirs in zip(run.velocities[:10], recorded[f"{run.precision}/traj_v"], strict=True):
        agree(run, ours, theirs)


def test_the_actions_of_few_steps_are_openpis(run, recorded):
    agree(run, run.four_steps, recorded[f"{run.precision}/sample_actions_4"])
    one_step = recorded["in/noise"] - run.velocities[0].astype(np.float32)
    agree(run, one_step, recorded[f"{run.precision}/sample_actions_1"])


def test_the_full_pass_is_openpis_from_the_suffix_to_the_velocity(run, recorded):
    agree(run, run.full["embed_suffix/tokens"], recorded[f"{run.precision}/embed_suffix/tokens"], 1e-5)
    agree(run, run.full["suffix_out"], recorded[f"{run.precision}/suffix_out"])
    agree(run, run.full["v_t"], recorded[f"{run.precision}/v_t"])
    agree(run, run.full["v_t"], recorded[f"{run.precision}/v_t_eager"])
    conditioning = recorded.get(f"{run.precision}/embed_suffix/adarms_cond")
    if conditioning is None:
        assert run.full["embed_suffix/adarms_cond"] is None
    else:
        agree(run, run.full["embed_suffix/adarms_cond"], conditioning, 1e-5)


def test_the_losses_are_openpis(run, recorded):
    noisy, times = noisy_batches(recorded)
    for index, name in enumerate(("loss_given", "compute_loss")):
        target = (noisy[index] - recorded["in/actions"]) / times[index][:, None, None]  # noise - actions
        loss = np.square(run.velocities[10 + index].astype(np.float32) - target).mean(-1)
        agree(run, loss, recorded[f"{run.precision}/{name}"])


@pytest.mark.parametrize("run", ["f32", "bf16"], indirect=True)
def test_the_prefix_goes_in_and_comes_out_as_openpis(run, recorded):
    tokens = recorded[f"{run.precision}/embed_prefix/tokens"]
    agree(run, run.full["embed_prefix/tokens"][:, :: 1 if run.exact else 8], tokens, 1e-5)
    agree(run, run.full["siglip"][:2, ::8], recorded[f"{run.precision}/siglip/base_0_rgb"], 1e-5)
    if run.exact:  # what a masked token becomes is nobody's business
        valid = recorded["f32/embed_prefix/input_mask"][:, ::8]
        ours, theirs = run.full["prefix_out"][:, ::8], recorded["f32/prefix_out"]
        np.testing.assert_allclose(ours[valid], theirs[valid], atol=1e-4)


def test_every_token_has_openpis_position_and_sees_what_it_sees_there(run, recorded):
    np.testing.assert_array_equal(run.full["embed_prefix/input_mask"], recorded["f32/embed_prefix/input_mask"])
    np.testing.assert_array_equal(run.full["positions"], recorded["positions_full"])
    tokens = run.full["positions"].shape[1]
    expected = np.unpackbits(recorded["attn_mask_full_packed"], axis=-1, count=tokens).astype(bool)
    np.testing.assert_array_equal(run.full["mask"], expected)


@pytest.mark.parametrize("run", ["f32", "bf16"], indirect=True)
@pytest.mark.parametrize("part", ["k", "v"])
def test_the_keys_and_values_of_every_layer_are_openpis(run, recorded, part):
    index, valid = "kv".index(part), recorded["f32/embed_prefix/input_mask"]
    full = run.full["cache"][index][:, :, ::16]
    real = np.concatenate([valid, np.ones((2, run.full["mask"].shape[1] - valid.shape[1]), bool)], axis=1)[:, ::16]
    agree(run, full[:, real], recorded[f"debug/{run.precision}/kv_{part}"][:, real], 1e-5)
    if run.exact:
        prefix = run.prefix_cache[index][:, :, ::16]
        real = valid[:, ::16]
        agree(run, prefix[:, real], recorded[f"debug/f32/prefix_kv_{part}"][:, real], 1e-5)


def test_every_output_has_openpis_type(run, tiny, openpi_data):
    recorded = json.loads((openpi_data / f"tiny_{tiny.family}_dtypes.json").read_text())
    ours = {**run.full, "traj_v": run.velocities[:10], "sample_actions_4": run.four_steps}
    names = [name for name, out in ours.items() if f"{run.precision}/{name}" in recorded and out is not None]
    assert {"v_t", "suffix_out", "embed_suffix/tokens", "traj_v", "sample_actions_4"} <= set(names)
    found = {name: f"{ours[name].dtype}[{', '.join(map(str, ours[name].shape))}]" for name in names}
    assert found == {name: recorded[f"{run.precision}/{name}"] for name in names}


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_inside_the_vision_tower_every_block_is_openpis(tiny, recorded, precision):
    config, dtype = tiny.config, PRECISIONS[precision][1]
    tower = SigLIP(config.vision, config.language.width, jnp.dtype(dtype), remat=None, unrolled=True)
    params = unflatten(unroll(flatten(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tiny.params))))
    pixels = jnp.asarray(recorded["in/image_u8/base_0_rgb"], jnp.float32) / 255.0 * 2.0 - 1.0
    run = jax.jit(lambda params, pixels: tower.apply({"params": params}, pixels, capture_intermediates=True)[1])
    seen = flatten(jax.device_get(run(params["PaliGemma"]["img"], pixels)["intermediates"]))

    def check(name, ours):
        agree(Run(precision, *[None] * 4), ours[:, ::16], recorded[f"debug/{precision}/siglip/{name}"], 1e-5)

    patches = seen["embedding/__call__"][0].reshape(2, -1, config.vision.width)
    x = (patches + np.asarray(params["PaliGemma"]["img"]["pos_embedding"], np.float32)).astype(dtype)
    check("with_posemb", x)
    for block in range(config.vision.depth):
        at = f"Transformer/encoderblock_{block}"
        attended = seen[f"{at}/MultiHeadDotProductAttention_0/__call__"][0]
        fed, x_after = seen[f"{at}/MlpBlock_0/__call__"][0], seen[f"{at}/__call__"][0][0]
        for name, ours in {"sa": attended, "+sa": x + attended, "mlp": fed, "+mlp": x_after}.items():
            check(f"block{block:02d}/{name}", ours)
        x = x_after
    check("encoded", seen["Transformer/__call__"][0])


def test_the_tower_sees_the_very_pixels_that_openpis_sees(run, recorded):
    """But for the last bit: the compiler may turn the division into a product."""
    for index, slot in enumerate(("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")):
        pixels = recorded[f"in/image_u8/{slot}"].astype(np.float32) / 255.0 * 2.0 - 1.0
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == recorded[f"in/image_f32_sha256/{slot}"]
        np.testing.assert_allclose(run.full["pixels"][2 * index : 2 * index + 2], pixels, rtol=0, atol=1.2e-7)


def test_noise_drawn_from_a_key_is_openpis_and_so_are_its_actions(tiny, recorded):
    key = jax.random.wrap_key_data(recorded["in/sample_key_data"])
    noise = jax.random.normal(key, recorded["in/noise"].shape)
    np.testing.assert_allclose(noise, recorded["in/sample_rng_noise"], atol=1e-6)
    run = jax.jit(lambda params, inputs: denoise(tiny.model, params, inputs, noise, 10), compiler_options=QUICK)
    np.testing.assert_allclose(run(tiny.params, tiny.inputs), recorded["f32/sample_actions_rng"], atol=1e-4)
