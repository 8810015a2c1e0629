"""The JSON beside a trajectory file: ManiSkill's own fields, and under `simulation` what a policy spec needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json, to_json
from sim_client.errors import TrajectoryError
from sim_client.files import replacing

__all__ = ["EpisodeFacts", "SimulationFacts", "TrajectoryFacts", "facts_path", "read_facts", "write_facts"]


@dataclass(frozen=True)
class SimulationFacts:
    """How the demonstrations were made: enough to evaluate a policy exactly as it was shown to act."""

    env_id: str
    """ManiSkill's name of the task."""
    prompt: str
    """The instruction of every episode."""
    robot_uids: str
    """ManiSkill's name of the robot."""
    control_mode: str
    """ManiSkill's name of the controller whose actions were recorded."""
    sim_freq: int
    """Physics steps per second."""
    control_freq: int
    """Actions, hence rows, per second."""
    camera_height: int
    """Rows of every frame."""
    camera_width: int
    """Columns of every frame."""
    cameras: tuple[str, ...]
    """ManiSkill's names of the recorded cameras."""
    action_names: tuple[str, ...]
    """What each action dimension moves."""
    action_low: tuple[float, ...]
    """Lower bounds, to which ManiSkill clips."""
    action_high: tuple[float, ...]
    """Upper bounds."""
    state_sources: Mapping[str, int]
    """Width of each source, such as `agent/qpos`: 9."""
    frame_stride: int
    """Every how many steps a frame was rendered; the rows between repeat it."""
    max_episode_steps: int
    """The limit under which the demonstrations were recorded."""
    base_seed: int
    """The first seed that was tried; the others follow it one by one."""
    attempted_seeds: tuple[int, ...]
    """Every seed up to the last kept one."""
    failed_seeds: Mapping[str, str]
    """The attempted seeds that gave no demonstration, with the reason."""
    versions: Mapping[str, str]
    """Package versions of the recording."""
    render_backend: str = "cpu"
    """What rendered the frames: `cpu` or `gpu`."""
    skip_blocked: bool = False
    """Whether seeds whose hand is blocked count as failed."""


@dataclass(frozen=True)
class EpisodeFacts:
    """One entry of ManiSkill's `episodes`."""

    episode_id: int
    """The number in `traj_{episode_id}`."""
    episode_seed: int
    """The seed of the reset."""
    control_mode: str
    """As in the simulation facts."""
    elapsed_steps: int
    """Number of actions."""
    success: bool
    """The task's verdict after the last action."""


@dataclass(frozen=True)
class TrajectoryFacts:
    """A whole JSON file."""

    simulation: SimulationFacts
    """Ours."""
    episodes: tuple[EpisodeFacts, ...]
    """In the order of their ids."""


def facts_path(trajectories: Path) -> Path:
    """The JSON that belongs to an `.h5` file."""
    return trajectories.with_suffix(".json")


def write_facts(trajectories: Path, facts: TrajectoryFacts) -> None:
    """Write the JSON of `trajectories` at once. Written last, it declares the episodes it lists complete."""
    document = {
        "env_info": _env_info(facts.simulation),
        "commit_info": None,
        "episodes": [_episode(episode) for episode in facts.episodes],
        "source_type": "motionplanning",
        "source_desc": (
            "ManiSkill's motion-planning solution, converted to "
            f"{facts.simulation.control_mode} and replayed open loop from the seed; only successful replays are kept"
        ),
        "simulation": to_json(facts.simulation),
    }
    with replacing(facts_path(trajectories)) as draft:
        draft.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_facts(trajectories: Path) -> TrajectoryFacts:
    """The facts of `trajectories`.

    Raises:
        TrajectoryError: no JSON beside the file, or not one that Chunkwire wrote.
    """
    path = facts_path(trajectories)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        keep = EpisodeFacts.__dataclass_fields__
        episodes = [{key: value for key, value in entry.items() if key in keep} for entry in document["episodes"]]
        return from_json(TrajectoryFacts, {"simulation": document["simulation"], "episodes": episodes})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecInvalid) as error:
        raise TrajectoryError(
            f"{path} does not describe demonstrations that Chunkwire collected ({error}). "
            "Collect them with `sim-client collect`."
        ) from error


def _env_info(facts: SimulationFacts) -> dict[str, Any]:
    """What `gymnasium.make(env_id, **env_kwargs)` needs to make the environment again."""
    return {
        "env_id": facts.env_id,
        "env_kwargs": {
            "obs_mode": "rgb",
            "robot_uids": facts.robot_uids,
            "control_mode": facts.control_mode,
            "sensor_configs": {"height": facts.camera_height, "width": facts.camera_width},
            "sim_config": {"sim_freq": facts.sim_freq, "control_freq": facts.control_freq},
            "sim_backend": "physx_cpu",
        },
        "max_episode_steps": facts.max_episode_steps,
    }


def _episode(episode: EpisodeFacts) -> dict[str, Any]:
    """The reset rebuilds the scene: that is how the demonstration started (see `Simulator`)."""
    return {**to_json(episode), "reset_kwargs": {"seed": episode.episode_seed, "options": {"reconfigure": True}}}
