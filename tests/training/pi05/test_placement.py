"""Weights on several devices: copies that compute alike, and one copy cut over all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

_SCRIPT = textwrap.dedent(
    """
    import json, sys
    import jax, numpy as np
    from policy_protocol.spec import PolicySpec
    from training.pi05.load import load_policy
    from training.pi05.policy import noise_from_seed

    jax.config.update("jax_disable_most_optimizations", True)
    step, spec, tokenizer = sys.argv[1:]
    spec = PolicySpec.read(spec)
    arguments = dict(spec=spec, tokenizer=tokenizer, dtype="float32")
    draw = np.random.default_rng(0)
    observation = {
        "observation/image": draw.integers(0, 256, (32, 32, 3), np.uint8),
        "observation/wrist_image": draw.integers(0, 256, (32, 32, 3), np.uint8),
        "observation/state": draw.uniform(-0.5, 0.5, 8), "prompt": "pick up the red cube",
    }
    copies = load_policy(step, devices=jax.devices()[:2], **arguments)
    cut = load_policy(step, devices=jax.devices(), shard=True, **arguments)
    noise = noise_from_seed(0, copies.noise_shape)[None]
    rows = [copies.transform(observation)]
    results = [copies.launch(rows, noise, replica=replica).actions() for replica in (0, 1)]
    results.append(cut.launch([cut.transform(observation)], noise).actions())
    largest = cut.weights_on_devices()
    print(json.dumps({
        "replicas": copies.replicas, "actions": [result.tolist() for result in results],
        "bytes": {str(device.id): size for device, size in largest.items()},
        "whole": {str(device.id): size for device, size in copies.weights_on_devices().items()},
    }))
    """
)


@pytest.fixture(scope="module")
def on_four_devices(tmp_path_factory, tiny_steps, libero_spec, tiny_tokenizer):
    """What a process with four virtual devices computes; this one has a single device for good."""
    spec = tmp_path_factory.mktemp("spec") / "spec.json"
    spec.write_text(libero_spec.to_json())
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tiny_steps["pi05"]), str(spec), tiny_tokenizer],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_copy_gives_the_same_actions(on_four_devices):
    first, second, _ = map(np.array, on_four_devices["actions"])
    assert on_four_devices["replicas"] == 2
    np.testing.assert_array_equal(first, second)


def test_cut_weights_give_the_actions_of_whole_ones(on_four_devices):
    whole, _, cut = map(np.array, on_four_devices["actions"])
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_cut_weights_take_about_a_quarter_of_each_of_four_devices(on_four_devices):
    whole, cut = on_four_devices["whole"], on_four_devices["bytes"]
    assert set(whole) == {"0", "1"}
    assert set(cut) == {"0", "1", "2", "3"}
    assert max(cut.values()) < 0.3 * whole["0"]
