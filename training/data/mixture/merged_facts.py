"""The simulation facts of several datasets as those of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from training.data.lerobot.dataset import Dataset
from training.data.lerobot.facts import CameraFacts, DatasetFacts

__all__ = ["merge_facts"]


def merge_facts(datasets: Sequence[Dataset], fingerprint: str) -> DatasetFacts | None:
    """Facts of datasets that agree (`check_agreement`); None when they have none.

    Environments, prompts and seeds are united, lengths are of all episodes, colours of all frames.
    """
    known = [dataset.facts for dataset in datasets if dataset.facts is not None]
    if not known:
        return None
    if len(known) == 1:
        return known[0]
    lengths = [episode.length for dataset in datasets for episode in dataset.episodes]
    return dataclasses.replace(
        known[0],
        env_ids=tuple(dict.fromkeys(env for facts in known for env in facts.env_ids)),
        prompts=tuple(dict.fromkeys(prompt for facts in known for prompt in facts.prompts)),
        demonstration_seeds=tuple(dict.fromkeys(seed for facts in known for seed in facts.demonstration_seeds)),
        demonstration_length={
            "q50": float(np.quantile(lengths, 0.5)),
            "q95": float(np.quantile(lengths, 0.95)),
            "max": float(max(lengths)),
        },
        cameras=tuple(_merge_camera(datasets, camera) for camera in known[0].cameras),
        fingerprint=fingerprint,
    )


def _merge_camera(datasets: Sequence[Dataset], camera: CameraFacts) -> CameraFacts:
    """The colours of all frames: means and squares weighted by the number of rows."""
    parts = [part for dataset in datasets if dataset.facts for part in dataset.facts.cameras if part.key == camera.key]
    rows = np.array([dataset.rows for dataset in datasets], dtype=np.float64)
    shares = (rows / rows.sum())[:, None]
    means, stds = (np.array([getattr(part, name) for part in parts]) for name in ("mean", "std"))
    mean = (shares * means).sum(axis=0)
    variance = (shares * (stds**2 + means**2)).sum(axis=0) - mean**2
    return dataclasses.replace(
        camera,
        mean=tuple(mean.tolist()),
        std=tuple(np.sqrt(np.maximum(variance, 0.0)).tolist()),
        all_zero=all(part.all_zero for part in parts),
    )
