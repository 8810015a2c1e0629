"""One update: openpi's own three steps, from its key to its parameters; and what augmentation changes of it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.augment import augment
from training.experiment import Experiment, OptimizerConfig
from training.pi05.model.flow import flow_loss_at, flow_loss_of_draws, sample_noise_and_time
from training.pi05.model.params import flatten
from training.pi05.model.pi import PiModel
from training.samples import Samples
from training.train_state import TrainState, optimizer
from training.train_step import draw_noise_and_times, make_gradients, make_loss, make_train_step

QUICK = {"xla_cpu_use_fusion_emitters": False}
"""A third of the time in the compiler, where these tests spend theirs."""
REAL_CAMERAS = ("base_0_rgb", "left_wrist_0_rgb")
"""openpi computed a third one too, absent in every row."""


def experiment_of(tiny, **settings):
    model = dataclasses.replace(tiny.config, dtype=settings.pop("dtype", "float32"), remat=False)
    schedule = OptimizerConfig(peak_lr=1e-3, end_lr=1e-4, warmup_steps=2)
    return Experiment("tiny", model, "recorded", steps=100, optimizer=schedule, **settings)


def fresh_state(experiment, params):
    params, averaged = jax.tree.map(jnp.array, params), jax.tree.map(jnp.array, params)
    return TrainState(
        jnp.int32(0), params, optimizer(experiment.optimizer, experiment.decay_steps).init(params), averaged
    )


def samples_of(tiny):
    actions = tiny.recorded["in/actions"]
    return Samples(tiny.inputs_of(*REAL_CAMERAS), actions, np.ones_like(actions))


@dataclasses.dataclass
class Trained:
    """Three steps, theirs and ours; parameters as one vector of how far each moved, every fourth of each leaf."""

    reported: np.ndarray
    reports: np.ndarray
    moved: np.ndarray
    moves: np.ndarray
    average_moved: np.ndarray
    average_moves: np.ndarray


def train(tiny, openpi_data, dtype):
    with np.load(openpi_data / f"tiny_pi05_train_{dtype}.npz") as recorded:
        expected = dict(recorded)
    experiment, samples = experiment_of(tiny, dtype=dtype), samples_of(tiny)
    state, reports = fresh_state(experiment, tiny.params), []
    key = jax.random.wrap_key_data(expected["key_data"])
    step = make_train_step(experiment).lower(state, key, samples).compile(QUICK)
    for _ in range(3):
        state, metrics = step(state, key, samples)
        reports.append([float(metrics[name]) for name in ("loss", "grad_norm", "param_norm")])
    assert state.params["action_in_proj"]["kernel"].dtype == np.float32  # the master weights, in either mode
    start, after = flatten(tiny.params), jax.device_get((flatten(state.params), flatten(state.ema_params)))

    def thin(leaves):
        return np.concatenate([np.ravel(leaves[path])[::4] for path in start])

    def theirs(kind):
        return np.concatenate([expected[f"{kind}/{path}"] for path in start])

    origin = thin(start)
    return Trained(
        *(expected["infos"], np.array(reports)),
        *(theirs("params") - origin, thin(after[0]) - origin),
        *(theirs("ema"), thin(after[1]) - origin),
    )


@pytest.fixture(scope="module")
def trained(tiny_pi05, openpi_data):
    """In float32: the steps draw their noise and times from openpi's key."""
    return train(tiny_pi05, openpi_data, "float32")


@pytest.fixture(scope="module")
def trained_bf16(tiny_pi05, openpi_data):
    """float32 weights, bfloat16 compute: how openpi trains."""
    return train(tiny_pi05, openpi_data, "bfloat16")


def distance(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def cosine(ours, theirs):
    return ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)


def test_three_steps_report_openpis_losses_gradient_norms_and_parameter_norms(trained):
    np.testing.assert_allclose(trained.reports, trained.reported, rtol=1e-5)


def test_three_steps_end_at_openpis_parameters(trained):
    """Adam divides by the gradient's size, so what is rounding in a gradient of zero is a whole step in a parameter."""
    assert np.abs(trained.moved).max() > 1e-3
    assert np.mean(np.abs(trained.moves - trained.moved) > 1e-5) < 1e-3
    assert distance(trained.moves, trained.moved) < 2e-3


def test_the_average_follows_the_parameters_as_openpis(trained):
    assert np.abs(trained.average_moved).max() > 1e-6
    assert distance(trained.average_moves, trained.average_moved) < 2e-3


def test_in_bfloat16_the_reports_are_openpis_within_its_rounding(trained_bf16):
    np.testing.assert_allclose(trained_bf16.reports[:, 0], trained_bf16.reported[:, 0], rtol=1e-3)
    np.testing.assert_allclose(trained_bf16.reports[:, 1], trained_bf16.reported[:, 1], rtol=1e-2)
    np.testing.assert_allclose(trained_bf16.reports[:, 2], trained_bf16.reported[:, 2], rtol=1e-5)


def test_in_bfloat16_the_parameters_move_openpis_way(trained_bf16):
    assert cosine(trained_bf16.moves, trained_bf16.moved) >= 0.999
    assert cosine(trained_bf16.average_moves, trained_bf16.average_moved) >= 0.998


def test_augmentation_changes_the_images_by_the_first_of_the_steps_three_keys(tiny_pi05):
    """The loss is that of the images that openpi's key augments, at the noise and times of the other two."""
    samples, key = samples_of(tiny_pi05), jax.random.key(3)
    first, _, _ = jax.random.split(key, 3)
    augmented = samples.replace(inputs=samples.inputs.replace(images=jax.jit(augment)(first, samples.inputs.images)))
    off, on = (jax.jit(make_loss(experiment_of(tiny_pi05, augment=augment))) for augment in (False, True))
    loss, expected, plain = (
        run(tiny_pi05.params, key, batch) for run, batch in ((on, samples), (off, augmented), (off, samples))
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert abs(float(loss - plain)) > 1e-4


def test_several_draws_give_the_mean_of_their_losses_and_gradients_each_computed_on_its_own(tiny_pi05):
    """The prefix that they share is computed once, and no number of it is lost."""
    samples, draws = samples_of(tiny_pi05), 3
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(samples.actions), draws, *samples.actions.shape[1:])).astype(np.float32)
    t = rng.uniform(0.1, 0.9, noise.shape[:2]).astype(np.float32)
    model = experiment_of(tiny_pi05).model

    def together(params):
        return jnp.mean(flow_loss_of_draws(PiModel(model), params, samples.inputs, samples.actions, noise, t))

    def alone(params, noise, t):
        return jnp.mean(flow_loss_at(PiModel(model), params, samples.inputs, samples.actions, noise, t))

    loss, gradient = jax.jit(jax.value_and_grad(together)).lower(tiny_pi05.params).compile(QUICK)(tiny_pi05.params)
    arguments = [(tiny_pi05.params, noise[:, draw], t[:, draw]) for draw in range(draws)]
    compiled = jax.jit(jax.value_and_grad(alone)).lower(*arguments[0]).compile(QUICK)
    losses, gradients = zip(*(compiled(*each) for each in arguments), strict=True)
    assert len({float(each) for each in losses}) == draws
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)
    expected = jax.tree.map(lambda *each: np.mean(each, axis=0), *gradients)
    for found, mean in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, mean, atol=1e-4 * max(np.abs(mean).max(), 1e-3))


def test_the_first_of_several_draws_is_openpis_and_the_others_are_new(tiny_pi05):
    """Draws add to what one draws: the loss of one is not changed by asking for more."""
    key, shape = jax.random.key(3), samples_of(tiny_pi05).actions.shape
    one, three = (draw_noise_and_times(key, shape, draws) for draws in (1, 3))
    openpis = sample_noise_and_time(key, shape)
    for first, of_three, expected in zip(one, three, openpis, strict=True):
        np.testing.assert_array_equal(first[:, 0], expected)
        np.testing.assert_array_equal(of_three[:, 0], expected)
        assert all(np.any(np.asarray(of_three[:, i]) != of_three[:, i - 1]) for i in (1, 2))


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(tiny_pi05):
    """Noise and times are those of the whole batch, and weights count over all of it."""
    samples, key = samples_of(tiny_pi05), jax.random.key(3)
    weights = np.random.default_rng(0).uniform(size=samples.weights.shape).astype(np.float32)
    samples = samples.replace(weights=weights)
    size, reports = len(weights), []
    for parts in (1, size):
        experiment = experiment_of(tiny_pi05, batch_size=size, accumulate_steps=parts, draws_per_sample=2)
        gradients = jax.jit(make_gradients(experiment)).lower(tiny_pi05.params, key, samples).compile(QUICK)
        reports.append(jax.device_get(gradients(tiny_pi05.params, key, samples)))
    (loss, whole), (loss_in_parts, in_parts) = reports
    assert size > 1
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    for expected, found in zip(*map(jax.tree.leaves, (whole, in_parts)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(np.abs(expected).max(), 1e-3))


def test_layers_one_by_one_give_the_gradient_of_the_loop_over_them(tiny_pi05):
    samples, key, reports = samples_of(tiny_pi05), jax.random.key(3), []
    for unrolled in (False, True):
        experiment = experiment_of(tiny_pi05, unroll_layers=unrolled, draws_per_sample=2)
        gradients = jax.jit(make_gradients(experiment)).lower(tiny_pi05.params, key, samples).compile(QUICK)
        reports.append(jax.device_get(gradients(tiny_pi05.params, key, samples)))
    (loss, looped), (loss_unrolled, unrolled) = reports
    assert loss_unrolled == pytest.approx(loss, rel=1e-5)
    for expected, found in zip(*map(jax.tree.leaves, (looped, unrolled)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(np.abs(expected).max(), 1e-3))


def test_what_recomputed_blocks_keep_is_chosen_by_the_policy(tiny_pi05):
    """Bytes that wait for the backward pass, from nothing to everything."""

    def kept(**settings):
        experiment = experiment_of(tiny_pi05)
        experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, **settings))
        loss, key, samples = make_loss(experiment), jax.random.key(0), samples_of(tiny_pi05)
        backward = jax.eval_shape(lambda params: jax.vjp(lambda p: loss(p, key, samples), params)[1], tiny_pi05.params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))

    policies = ("nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable")
    nothing, weights, products = (kept(remat=True, remat_policy=policy) for policy in policies)
    assert nothing < weights < products < kept(remat=False)
