"""A policy that starts with what an earlier start compiled gives the same actions, to the last bit."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest

from training.pi05 import denoiser
from training.pi05.compile_cache import traced_folder
from training.pi05.load import load_policy


class Start(NamedTuple):
    """What one start of a policy computed, and how many programs it compiled or read for it, and later."""

    actions: np.ndarray
    programs: int
    programs_later: int


def refuse(*_):
    raise AssertionError("the model was traced")


@pytest.fixture(scope="module")
def starts(own_caches, tiny_steps, libero_spec, tiny_tokenizer):
    """Actions of the same request without kept programs, at the start that keeps them, and at a later one."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )
    one_step = dataclasses.replace(libero_spec, policy=dataclasses.replace(libero_spec.policy, denoising_steps=1))

    def start():
        policy = load_policy(tiny_steps["pi05"], spec=one_step, tokenizer=tiny_tokenizer, dtype="float32")
        side = policy.model.vision.image_size
        row = policy.transform(
            {
                "observation/image": np.full((side, side, 3), 90, np.uint8),
                "observation/wrist_image": np.full((side, side, 3), 20, np.uint8),
                "observation/state": np.linspace(-0.5, 0.5, 8),
                "prompt": "pick up the red cube",
            }
        )
        noise, before = np.ones((1, *policy.noise_shape), np.float32), len(compiled)
        actions = policy.launch([row], noise, pad_to=2).actions()
        first = len(compiled) - before
        policy.launch([row, row], np.concatenate([noise, noise])).actions()
        return Start(actions, first, len(compiled) - before - first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoiser, "traced_folder", lambda: None)
        results = [start()]
    results.append(start())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoiser, "denoise", refuse)
        results.append(start())
    return results


def test_keeping_a_program_changes_no_action(starts):
    np.testing.assert_array_equal(starts[1].actions, starts[0].actions)


def test_a_later_start_computes_the_same_without_tracing_the_model(starts):
    np.testing.assert_array_equal(starts[2].actions, starts[0].actions)


def test_a_program_that_is_read_is_counted_like_one_that_is_compiled_and_none_comes_later(starts):
    assert [start.programs for start in starts] == [1, 1, 1]
    assert [start.programs_later for start in starts] == [0, 0, 0]


def test_one_program_is_kept_for_one_shape(starts):
    (path,) = traced_folder().iterdir()
    assert path.name.startswith("denoise_")
