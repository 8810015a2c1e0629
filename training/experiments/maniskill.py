"""Six ManiSkill tasks with Pi0.5 and Pi0: full size, with LoRA, and small.

`RECIPES` says how demonstrations become the policies that ship; docs/experiments.md has the reasons for their figures.

Two cameras, the task's own prompt, and ManiSkill's delta end-effector actions as they were recorded: no delta transform
is laid over them. What the state holds is written in the dataset; that of PickCube has `goal_pos` in it, for no camera
sees where to go (`training.data.conversion.state_fields`), and it enters the model by the prompt (Pi0.5) or a token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from policy_protocol.spec import Family
from training.experiment import Experiment, OptimizerConfig
from training.pi05.model.config import preset
from training.recipe import Recipe

__all__ = ["EXPERIMENTS", "RECIPES"]

_TASKS = ("stackcube", "pickcube", "pushcube", "pullcube", "placesphere", "peginsertionside")
_FAMILIES: tuple[Family, ...] = ("pi05", "pi0")
_BATCH_SIZE = {"pi05": 128, "pi0": 256}
_ACTION_HORIZON = 20


def _full(family: Family, task: str) -> Experiment:
    """All weights from openpi's base, at the rates that openpi publishes for LIBERO: none decays within the run."""
    return Experiment(
        name=f"{family}_maniskill_{task}",
        model=replace(preset(family), action_horizon=_ACTION_HORIZON),
        dataset=f"datasets/{task}",
        batch_size=_BATCH_SIZE[family],
        optimizer=OptimizerConfig(
            peak_lr=5e-5, end_lr=5e-5, warmup_steps=10_000, decay_steps=1_000_000, clip_norm=1.0, ema_decay=0.999
        ),
        # A delta that is repeated past the end is a motion that nobody demonstrated.
        mask_padded_steps=True,
        augment=True,
        init=f"gs://openpi-assets/checkpoints/{family}_base/params",
        held_out=0.05,
        validate_every=1_000,
        log_every=100,
    )


def _lora(family: Family, task: str) -> Experiment:
    """Factors beside both transformers, their weights frozen, no average: openpi's recipe for one GPU."""
    return replace(
        _full(family, task),
        name=f"{family}_maniskill_{task}_lora",
        model=replace(preset(f"{family}_lora"), action_horizon=_ACTION_HORIZON),
        batch_size=32,
        optimizer=OptimizerConfig(ema_decay=None),
    )


def _small(family: Family, task: str) -> Experiment:
    """Every part of the model, at a size that two CPU cores train from scratch."""
    return Experiment(
        name=f"{family}_maniskill_{task}_small",
        model=preset(f"{family}_small"),
        dataset=f"datasets/{task}",
        tokenizer="small",
        batch_size=32,
        steps=3_000,
        # From scratch, so the rate is a hundred times that of fine-tuning; the average forgets in a few hundred steps.
        optimizer=OptimizerConfig(peak_lr=1e-3, end_lr=2e-5, warmup_steps=50, weight_decay=1e-4, ema_decay=0.99),
        mask_padded_steps=True,
        # A hundred demonstrations are learnt by heart without: docs/experiments.md has each one's effect.
        state_noise=0.05,
        shift_pixels=2,
        draws_per_sample=4,
        unroll_layers=True,
        execution_horizon=8,
        held_out=0.05,
        validate_every=250,
        save_every=250,
    )


def _recipe(task: str, env_id: str, **figures: Any) -> Recipe:
    return Recipe(name=task, env_id=env_id, experiment=f"pi05_maniskill_{task}_small", **figures)


EXPERIMENTS = tuple(make(family, task) for make in (_full, _lora, _small) for family in _FAMILIES for task in _TASKS)

_PICKCUBE = _recipe("pickcube", "PickCube-v1", demonstrations=200, goal=("extra/goal_pos",))

RECIPES = (
    _recipe("pushcube", "PushCube-v1"),
    _recipe("pullcube", "PullCube-v1"),
    # Half a cube is two pixels of 64: too few where the wrist camera does not see the green one.
    _recipe("stackcube", "StackCube-v1", demonstrations=200, steps=5_000, settings=("model.vision.image_size=96",)),
    _PICKCUBE,
    # The same in everything, but that nobody tells the policy where to go.
    replace(_PICKCUBE, name="pickcube-without-goal", goal=(), ignore_checks=("hidden-goal",)),
)
