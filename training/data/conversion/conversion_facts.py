"""What a conversion knows beyond the rows: gathered from the recordings and the written data, stored in `meta/`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy_protocol.spec import StateField
from training.data.conversion.demonstrations import Demonstrations
from training.data.conversion.recording import EpisodeEntry
from training.data.lerobot.content_hash import ContentHash
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.facts import CameraFacts, DatasetFacts, write_facts
from training.data.lerobot.writing.dataset_writer import DatasetWriter
from training.data.statistics.norm_stats import NORM_STATS_FILE, compute_norm_stats
from training.pi05.transforms.normalization import write_norm_stats

__all__ = ["action_names", "camera_key", "write_conversion_facts"]

_CAMERA_KEYS = {"base_camera": "image", "hand_camera": "wrist_image"}


def camera_key(camera: str) -> str:
    """The dataset's key of a ManiSkill camera; a camera that is neither base nor hand keeps its name."""
    return _CAMERA_KEYS.get(camera, camera)


def action_names(demonstrations: Demonstrations) -> tuple[str, ...]:
    """A name for each action dimension, numbered where the recording has none."""
    names = demonstrations.recording.action_names
    return names or tuple(f"action_{index}" for index in range(demonstrations.action_dim))


def write_conversion_facts(
    writer: DatasetWriter,
    recordings: Sequence[Demonstrations],
    fields: tuple[StateField, ...],
    entries: Sequence[EpisodeEntry],
    recorded_steps: int,
) -> DatasetFacts:
    """Put the facts and the norm stats beside the finished data, which is not yet renamed."""
    dataset, first = Dataset(writer.root), recordings[0].recording
    lengths = [episode.length for episode in dataset.episodes]
    facts = DatasetFacts(
        env_ids=(first.env_id,),
        robot_uids=first.robot_uids,
        control_mode=first.control_mode,
        sim_freq=first.sim_freq,
        control_freq=first.control_freq,
        cameras=tuple(_camera_facts(writer, camera) for camera in recordings[0].cameras),
        state_fields=fields,
        action_names=action_names(recordings[0]),
        action_low=first.action_low,
        action_high=first.action_high,
        prompts=tuple(dict.fromkeys(part.recording.prompt for part in recordings)),
        demonstration_length={
            "q50": float(np.quantile(lengths, 0.5)),
            "q95": float(np.quantile(lengths, 0.95)),
            "max": float(max(lengths)),
        },
        demonstration_seeds=tuple(entry.seed for entry in entries if entry.seed is not None),
        frame_stride=first.frame_stride,
        idle_steps_left_out=recorded_steps - dataset.rows,
        fingerprint=ContentHash(dataset).hex,
        versions=first.versions,
    )
    write_norm_stats(writer.root / NORM_STATS_FILE, compute_norm_stats(dataset))
    write_facts(writer.root, facts)
    return facts


def _camera_facts(writer: DatasetWriter, camera: str) -> CameraFacts:
    key = camera_key(camera)
    height, width = writer.features[key].image_size
    colours = writer.histograms[key]
    return CameraFacts(
        key=key,
        simulator_camera=camera,
        height=height,
        width=width,
        mean=tuple(colours.mean.tolist()),
        std=tuple(colours.std.tolist()),
        all_zero=colours.all_zero,
    )
