"""Reads what can be replayed: a dataset of `train convert`, or an HDF5 file of `sim-client collect`.

Only actions and facts are read, with pyarrow or h5py, which the extra `train` brings. The rest of `training` is not
the server's to import.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json
from policy_protocol.spec import StateField
from policy_server.policies.recording import RecordedCamera, RecordedFacts, Recording, RecordingInvalid

__all__ = ["read_recording"]

_FACTS_FILE = "meta/chunkwire.json"


def read_recording(source: Path) -> Recording:
    """The demonstrations at `source`.

    Raises:
        RecordingInvalid: nothing there, no facts of the simulation, seeds unknown, damaged, or a package is missing.
    """
    if not source.exists():
        raise RecordingInvalid(
            f"There is no recording at {source}. Pass --policy replay:DATASET with a dataset of 'train convert' or "
            "an .h5 file of 'sim-client collect'."
        )
    try:
        recording = _read_dataset(source) if source.is_dir() else _read_demonstrations(source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecInvalid) as error:
        raise RecordingInvalid(f"The recording {source} cannot be read: {error}") from error
    widths = {actions.shape[1] for actions in recording.actions.values()}
    if widths != {len(recording.facts.action_names)}:
        raise RecordingInvalid(
            f"{source} has actions of {sorted(widths)} dimensions but names {len(recording.facts.action_names)}."
        )
    return recording


def _read_dataset(root: Path) -> Recording:
    path = root / _FACTS_FILE
    if not path.is_file():
        raise RecordingInvalid(
            f"{root} has no {_FACTS_FILE}, so nothing says which episode belongs to which reset seed. Replay a "
            "dataset that 'train convert' wrote."
        )
    known = {field.name for field in dataclasses.fields(RecordedFacts)}
    document = json.loads(path.read_text(encoding="utf-8"))
    facts = from_json(RecordedFacts, {key: value for key, value in document.items() if key in known})
    episodes = _episodes_of(root)
    if len(facts.demonstration_seeds) != len(episodes):
        raise RecordingInvalid(
            f"{root} knows the reset seeds of {len(facts.demonstration_seeds)} of its {len(episodes)} episodes, so "
            "they cannot be told apart. Convert a recording of 'sim-client collect', which writes every seed."
        )
    by_seed = zip(facts.demonstration_seeds, (episodes[index] for index in sorted(episodes)), strict=True)
    return Recording(root, facts, dict(by_seed))


def _episodes_of(root: Path) -> dict[int, np.ndarray]:
    """Actions by episode index, from the data files of either version of the layout."""
    parquet = _optional("pyarrow.parquet")
    parts: dict[int, list[np.ndarray]] = {}
    for path in sorted((root / "data").rglob("*.parquet")):
        table = parquet.read_table(path, columns=["episode_index", "actions"])
        actions = np.stack(table["actions"].to_numpy())
        indices = table["episode_index"].to_numpy()
        for index in np.unique(indices).tolist():
            parts.setdefault(index, []).append(actions[indices == index])
    return {index: np.concatenate(rows) for index, rows in parts.items()}


def _read_demonstrations(path: Path) -> Recording:
    sidecar = path.with_suffix(".json")
    document: Mapping[str, Any] = json.loads(sidecar.read_text(encoding="utf-8"))
    if "simulation" not in document:
        raise RecordingInvalid(
            f"{sidecar} does not say how the simulation was set up. Convert the recording with 'train convert', whose "
            "flags state what is missing, and replay the dataset."
        )
    seeds = {entry["episode_id"]: entry["episode_seed"] for entry in document["episodes"]}
    with _optional("h5py").File(path, "r") as file:
        actions = {seed: file[f"traj_{number}/actions"][()] for number, seed in seeds.items()}
    return Recording(path, _facts_of(document["simulation"], tuple(seeds.values())), actions)


def _facts_of(simulation: Mapping[str, Any], seeds: tuple[int, ...]) -> RecordedFacts:
    height, width = simulation["camera_height"], simulation["camera_width"]
    return RecordedFacts(
        env_ids=(simulation["env_id"],),
        robot_uids=simulation["robot_uids"],
        control_mode=simulation["control_mode"],
        sim_freq=simulation["sim_freq"],
        control_freq=simulation["control_freq"],
        cameras=tuple(RecordedCamera(name, name, height, width) for name in simulation["cameras"]),
        state_fields=(StateField("qpos", "agent/qpos", 0, simulation["state_sources"]["agent/qpos"]),),
        prompts=(simulation["prompt"],),
        action_names=tuple(simulation["action_names"]),
        action_low=tuple(simulation["action_low"]),
        action_high=tuple(simulation["action_high"]),
        demonstration_seeds=seeds,
        frame_stride=simulation["frame_stride"],
        versions=simulation["versions"],
    )


def _optional(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RecordingInvalid(
            f"Replaying needs the package {name.partition('.')[0]}. Install it: pip install 'chunkwire[train]'"
        ) from error
