"""`meta/chunkwire.json`: the simulation facts of a dataset, which LeRobot's own metadata has no place for.

An evaluation must run the simulator as the demonstrations were recorded, so a policy spec is filled from these facts.
A dataset without the file is a plain LeRobot dataset: its facts are None and training must be told them otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json, to_json
from policy_protocol.spec import StateField
from training.data.errors import DatasetInvalid

__all__ = ["FACTS_FILE", "CameraFacts", "DatasetFacts", "read_facts", "write_facts"]

FACTS_FILE = "meta/chunkwire.json"


@dataclass(frozen=True)
class CameraFacts:
    """One camera of a dataset, (height, width, 3) uint8 RGB."""

    key: str
    """The dataset's key, such as `image`."""
    simulator_camera: str
    """ManiSkill's name of the camera, such as `base_camera`."""
    height: int
    """Pixels of the stored frames."""
    width: int
    mean: tuple[float, ...]
    """Mean of each colour channel over all stored frames, 0 to 255."""
    std: tuple[float, ...]
    """Standard deviation of each colour channel over all pixels, 0 to 255."""
    all_zero: bool
    """Every frame is black: the camera did not exist when the data was recorded."""


@dataclass(frozen=True)
class DatasetFacts:
    """How the demonstrations of a dataset were recorded."""

    env_ids: tuple[str, ...]
    """ManiSkill environments, such as `StackCube-v1`."""
    robot_uids: str
    control_mode: str
    """ManiSkill control mode of the actions, such as `pd_ee_delta_pose`."""
    sim_freq: int
    """Physics steps per second."""
    control_freq: int
    """Actions per second; equals the dataset's fps."""
    cameras: tuple[CameraFacts, ...]
    state_fields: tuple[StateField, ...]
    """The parts of `state`, in order, and where the simulator has them."""
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    """Lower bound of each action dimension in the controller's units; empty when unknown."""
    action_high: tuple[float, ...]
    prompts: tuple[str, ...]
    demonstration_length: Mapping[str, float]
    """Quantiles of the episodes' lengths in steps: `q50`, `q95`, `max`."""
    demonstration_seeds: tuple[int, ...] = ()
    """Reset seeds of the episodes, in episode order; an episode of unknown seed is left out."""
    frame_stride: int = 1
    """Every how many steps a frame was really rendered; the rows between repeat the last one."""
    idle_steps_left_out: int = 0
    """Recorded steps that the dataset lacks, all together: those at the episodes' starts in which nothing moved."""
    fingerprint: str = ""
    """SHA-256 over the columns and the stored frames when they were converted (`ContentHash`)."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package versions of the recording."""


def read_facts(root: Path) -> DatasetFacts | None:
    """The facts of the dataset at `root`, or None when it has no `meta/chunkwire.json`.

    Raises:
        DatasetInvalid: the file is damaged; names the path of the first field that is wrong.
    """
    path = root / FACTS_FILE
    if not path.is_file():
        return None
    try:
        return from_json(DatasetFacts, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, SpecInvalid) as error:
        raise DatasetInvalid(
            f"{path} is damaged: {error} Convert the demonstrations again with 'train convert … --overwrite', "
            "or remove the file to use the dataset without its simulation facts."
        ) from error


def write_facts(root: Path, facts: DatasetFacts) -> None:
    """Write `meta/chunkwire.json` of the dataset at `root`."""
    text = json.dumps(to_json(facts), indent=2, ensure_ascii=False, allow_nan=False)
    (root / FACTS_FILE).write_text(text + "\n", encoding="utf-8")
