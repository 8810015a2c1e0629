"""The optimizer: openpi's learning-rate schedule."""

from __future__ import annotations

import numpy as np

from training.experiment import OptimizerConfig
from training.train_state import learning_rate


def test_the_learning_rate_is_openpis_at_every_step(openpi_data):
    with np.load(openpi_data / "helpers.npz") as helpers:
        expected = helpers["sched/cosine_10_2.5e-5_30_2.5e-6"]
    schedule = learning_rate(OptimizerConfig(peak_lr=2.5e-5, end_lr=2.5e-6, warmup_steps=10), 30)
    np.testing.assert_allclose([float(schedule(step)) for step in range(40)], expected, rtol=1e-5)
