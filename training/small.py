"""The small Pi0.5 of each ManiSkill task: every part of the model, at a size that two CPU cores train."""

from __future__ import annotations

from training.experiment import Experiment, OptimizerConfig
from training.pi05.model.config import preset

__all__ = ["small_pi05"]


def small_pi05(task: str) -> Experiment:
    """The experiment `pi05_maniskill_<task>_small`, trained from scratch on `datasets/<task>`."""
    return Experiment(
        name=f"pi05_maniskill_{task}_small",
        model=preset("pi05_small"),
        dataset=f"datasets/{task}",
        tokenizer="small",
        batch_size=32,
        steps=600,
        # From scratch, so the rate is a hundred times that of fine-tuning; the average forgets within a hundred steps.
        optimizer=OptimizerConfig(peak_lr=1e-3, end_lr=1e-4, warmup_steps=20, weight_decay=1e-4, ema_decay=0.98),
        mask_padded_steps=True,
        execution_horizon=8,
        save_every=200,
    )
