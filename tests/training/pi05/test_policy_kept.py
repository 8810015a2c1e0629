"""A policy that starts with what an earlier start compiled gives the same actions, to the last bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.pi05 import denoiser
from training.pi05.compile_cache import traced_folder
from training.pi05.load import load_policy


def refuse(*_):
    raise AssertionError("the model was traced")


@pytest.fixture(scope="module")
def starts(own_caches, tiny_steps, libero_spec, tiny_tokenizer):
    """Actions of the same request without kept programs, at the start that keeps them, and at a later one."""
    one_step = dataclasses.replace(libero_spec, policy=dataclasses.replace(libero_spec.policy, denoising_steps=1))

    def actions():
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
        return policy.launch([row], np.ones((1, *policy.noise_shape), np.float32), pad_to=2).actions()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoiser, "traced_folder", lambda: None)
        results = [actions()]
    results.append(actions())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoiser, "denoise", refuse)
        results.append(actions())
    return results


def test_keeping_a_program_changes_no_action(starts):
    np.testing.assert_array_equal(starts[1], starts[0])


def test_a_later_start_computes_the_same_without_tracing_the_model(starts):
    np.testing.assert_array_equal(starts[2], starts[0])


def test_one_program_is_kept_for_one_shape(starts):
    (path,) = traced_folder().iterdir()
    assert path.name.startswith("denoise_")
