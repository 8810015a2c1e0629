"""The policy spec of a training run: what the dataset's facts and the experiment together promise."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping

from policy_protocol.spec import (
    ActionSpec,
    CameraSpec,
    CheckpointId,
    ObservationSpec,
    PolicySection,
    PolicySpec,
    PromptSpec,
    SimulationSpec,
    StateField,
    StateSpec,
)
from training.data.errors import DatasetInvalid
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.facts import DatasetFacts
from training.data.mixture.mixture import Mixture
from training.experiment import Experiment
from training.pi05.model.config import SLOTS
from training.pi05.model.params import count_params, param_shapes
from training.pi05.transforms.normalization import NormStats, norm_stats_hash

__all__ = ["WIRE_PREFIX", "build_spec"]

WIRE_PREFIX = "observation/"
"""A dataset's `image` travels as `observation/image`, as in openpi's LIBERO policy."""
_LIMIT_FACTOR = 1.5
"""How much longer than the longest demonstration an evaluation episode may take."""
_VERSIONS = ("chunkwire", "jax", "flax", "orbax-checkpoint", "optax", "numpy")


def build_spec(
    experiment: Experiment, dataset: Dataset | Mixture, norm_stats: Mapping[str, NormStats], fingerprint: str, run: str
) -> PolicySpec:
    """The spec of a run's checkpoints; the run's id and the step are filled in when one is saved.

    Raises:
        DatasetInvalid: the dataset has no camera, or more than the model has views, or wider vectors than it holds.
    """
    _check_widths(experiment, dataset, norm_stats)
    policy = PolicySection(
        family=experiment.model.family,
        action_horizon=experiment.model.action_horizon,
        execution_horizon=experiment.execution_horizon,
        denoising_steps=experiment.denoising_steps,
        checkpoint=CheckpointId(experiment.name, run, 0),
        parameter_count=count_params(param_shapes(experiment.model)),
        normalization=experiment.normalization,
        dataset_fingerprint=fingerprint,
        norm_stats_hash=norm_stats_hash(norm_stats),
        asset_id=experiment.asset_id,
        versions={name: importlib.metadata.version(name) for name in _VERSIONS},
    )
    observation = ObservationSpec(
        cameras=_cameras(dataset),
        state=_state(dataset, norm_stats["state"]),
        prompt=PromptSpec(
            key="prompt",
            max_tokens=experiment.model.max_token_len,
            includes_state=experiment.discrete_state_input and experiment.model.pi05,
            trained=tuple(sorted(dataset.tasks)),
        ),
    )
    return PolicySpec(policy, observation, _action(dataset, norm_stats["actions"]), _simulation(dataset.facts))


def _check_widths(experiment: Experiment, dataset: Dataset | Mixture, norm_stats: Mapping[str, NormStats]) -> None:
    widest = max(norm_stats, key=lambda name: norm_stats[name].dimension)
    width = norm_stats[widest].dimension
    if width > experiment.model.action_dim:
        raise DatasetInvalid(
            f"{widest!r} of {dataset.root} has {width} dimensions but the model holds {experiment.model.action_dim}. "
            f"Train with --set model.action_dim={width}."
        )


def _cameras(dataset: Dataset | Mixture) -> tuple[CameraSpec, ...]:
    keys = sorted(dataset.cameras, key=lambda key: "wrist" in key)  # the base view comes first
    if not 1 <= len(keys) <= len(SLOTS):
        raise DatasetInvalid(
            f"{dataset.root} has {len(keys)} cameras ({', '.join(keys) or 'none'}); a model takes 1 to {len(SLOTS)}."
        )
    facts = {} if dataset.facts is None else {camera.key: camera for camera in dataset.facts.cameras}
    cameras = []
    for key, slot in zip(keys, SLOTS, strict=False):
        height, width = dataset.features[key].image_size
        known = facts.get(key)
        cameras.append(
            CameraSpec(
                key=WIRE_PREFIX + key,
                slot=slot,
                simulator_camera="" if known is None else known.simulator_camera,
                height=height,
                width=width,
                mean=() if known is None else known.mean,
                std=() if known is None else known.std,
                all_zero=known is not None and known.all_zero,
            )
        )
    return tuple(cameras)


def _state(dataset: Dataset | Mixture, stats: NormStats) -> StateSpec:
    fields = (
        (StateField("state", "", 0, stats.dimension),) if dataset.facts is None else tuple(dataset.facts.state_fields)
    )
    mean, std = tuple(stats.mean.tolist()), tuple(stats.std.tolist())
    return StateSpec(WIRE_PREFIX + "state", fields, *_quantiles(stats), mean, std)


def _action(dataset: Dataset | Mixture, stats: NormStats) -> ActionSpec:
    facts = dataset.facts
    if facts is None:
        names = tuple(f"action_{index}" for index in range(stats.dimension))
        return ActionSpec(stats.dimension, names, "", (), (), *_quantiles(stats))
    return ActionSpec(
        stats.dimension, facts.action_names, facts.control_mode, facts.action_low, facts.action_high, *_quantiles(stats)
    )


def _quantiles(stats: NormStats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    q01, q99 = stats.quantiles
    return tuple(q01.tolist()), tuple(q99.tolist())


def _simulation(facts: DatasetFacts | None) -> SimulationSpec | None:
    if facts is None:
        return None
    return SimulationSpec(
        env_ids=facts.env_ids,
        robot_uids=facts.robot_uids,
        sim_freq=facts.sim_freq,
        control_freq=facts.control_freq,
        demonstration_length=facts.demonstration_length,
        max_episode_steps=math.ceil(_LIMIT_FACTOR * facts.demonstration_length["max"]),
        demonstration_seeds=facts.demonstration_seeds,
        frame_stride=facts.frame_stride,
    )
