"""The model can learn: one demonstration, seen often enough, comes back from its checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.data import Dataset, compute_norm_stats
from training.experiment import override
from training.experiments import find_experiment
from training.loop import train
from training.pi05 import load_policy
from training.pi05.transforms.normalization import normalize

_DEMONSTRATION = Path(__file__).parents[1] / "data" / "demonstration" / "stackcube"
_SETTINGS = (
    f"dataset={_DEMONSTRATION}",
    # Every part of the model, a third of its parameters: two minutes on two cores.
    *("model.vision.patch_size=32", "model.vision.width=48", "model.vision.mlp_width=96", "model.vision.depth=2"),
    *("model.language.width=64", "model.language.mlp_width=128", "model.language.depth=2", "model.expert.depth=2"),
    *("steps=700", "save_every=700", "log_every=100"),
    *("held_out=0", "draws_per_sample=1", "state_noise=0", "shift_pixels=0"),  # to learn it by heart is what is asked
    *("optimizer.peak_lr=2e-3", "optimizer.end_lr=1e-5", "optimizer.warmup_steps=30", "optimizer.ema_decay=0.97"),
)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """No: hundreds of steps are worth an optimising compiler."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """The small Pi0.5, trained on one demonstration and loaded from its checkpoint."""
    folder = tmp_path_factory.mktemp("overfit")
    experiment = override(find_experiment("pi05_maniskill_stackcube_small"), _SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHUNKWIRE_CACHE", str(folder / "cache"))
        return load_policy(train(experiment, "overfit", folder / "runs"))


def test_trained_on_one_demonstration_the_small_pi05_reproduces_its_action_chunks(policy):
    demonstration = Dataset(_DEMONSTRATION)
    stats = compute_norm_stats(demonstration)["actions"]
    actions = normalize(demonstration.column("actions"), stats, "quantile")
    state, (prompt,) = demonstration.column("state"), demonstration.prompts(np.array([0]))
    frames = {key: list(demonstration.frames(key, 0)) for key in ("image", "wrist_image")}
    errors, of_the_middle = [], []
    for row in range(0, demonstration.rows, 3):
        observation = {
            **{f"observation/{key}": images[row] for key, images in frames.items()},
            "observation/state": state[row],
            "prompt": prompt,
        }
        chunk = policy(observation, noise_seed=row).actions
        inside = min(len(chunk), demonstration.rows - row)
        truth = actions[row : row + inside]
        errors.append(np.abs(normalize(chunk[:inside], stats, "quantile") - truth))
        of_the_middle.append(np.abs(np.median(actions, axis=0) - truth))
    assert np.concatenate(errors).mean() < 0.05
    # A constant answer would be five times as far off.
    assert np.concatenate(of_the_middle).mean() > 0.25
