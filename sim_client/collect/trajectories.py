"""Demonstrations on disk, in ManiSkill's trajectory layout: `<name>.h5` for arrays and `<name>.json` for facts.

    traj_{i}/actions                          (steps, action_dim) float32
    traj_{i}/success, terminated, truncated   (steps,) bool; ManiSkill terminates on success
    traj_{i}/stages/<flag>                    (steps,) bool, the task's other verdicts
    traj_{i}/obs/agent/qpos, qvel             (steps + 1, dim) float32
    traj_{i}/obs/extra/<name>                 (steps + 1, dim) float32, `tcp_pose` and the task's own
    traj_{i}/obs/sensor_data/<camera>/rgb     (steps + 1, height, width, 3) uint8, gzip, one chunk a frame
    traj_{i}/obs/frame_rendered               (steps + 1,) bool, False where a frame repeats the one before

Row t of `obs` is what the robot sensed before action t; the last row follows the last action. `stages`,
`frame_rendered` and the `simulation` object of the JSON are additions; the rest is what
`mani_skill.utils.wrappers.RecordEpisode` writes. h5py only: no simulator is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from sim_client.errors import TrajectoryError
from sim_client.files import replacing

__all__ = ["Episode", "merge_episodes", "read_episode", "split_episode", "write_episode"]


@dataclass(frozen=True)
class Episode:
    """One demonstration. `rows` is the number of actions plus one."""

    seed: int
    """Reset seed: the simulator starts from it exactly as the demonstration did."""
    actions: Float32[np.ndarray, "steps action_dim"]
    """In the controller's units, within its bounds."""
    state: Mapping[str, Float32[np.ndarray, "rows dim"]]
    """Per source, such as `agent/qpos`."""
    frames: Mapping[str, UInt8[np.ndarray, "rows height width 3"]]
    """RGB per camera."""
    frame_rendered: Bool[np.ndarray, "rows"]
    """False where the frame repeats the last one that was rendered."""
    success: Bool[np.ndarray, "steps"]
    """The task's verdict after each action."""
    stages: Mapping[str, Bool[np.ndarray, "steps"]]
    """The task's other verdicts."""
    truncated: Bool[np.ndarray, "steps"]
    """Whether the episode limit was reached."""


def write_episode(path: Path, episode: Episode) -> None:
    """Write one episode as a file of its own, at once: after a crash `path` holds all of it or does not exist."""
    with replacing(path) as draft, h5py.File(draft, "w") as file:
        file.attrs["seed"] = episode.seed
        _fill(file.create_group("traj_0", track_order=True), episode)


def merge_episodes(parts: Sequence[Path], path: Path) -> tuple[int, ...]:
    """Join files of `write_episode` into one, `traj_0` to `traj_{n-1}` in the order given; returns their lengths.

    The file appears at once, replacing an older one.
    """
    lengths = []
    with replacing(path) as draft, h5py.File(draft, "w") as merged:
        for index, part in enumerate(parts):
            with h5py.File(part) as file:
                file.copy("traj_0", merged, f"traj_{index}")
                lengths.append(len(file["traj_0/actions"]))
    return tuple(lengths)


def split_episode(path: Path, index: int, seed: int, part: Path) -> None:
    """Copy `traj_{index}` of a merged file into a file of its own, as `write_episode` would have written it."""
    with replacing(part) as draft, h5py.File(draft, "w") as file, h5py.File(path) as merged:
        file.attrs["seed"] = seed
        merged.copy(f"traj_{index}", file, "traj_0")


def read_episode(path: Path, index: int = 0, seed: int = -1) -> Episode:
    """The episode `traj_{index}` of a file; `seed` comes from the JSON beside it (a part knows its own).

    Raises:
        TrajectoryError: no such file, no such episode, or not the layout above.
    """
    try:
        with h5py.File(path) as file:
            return _read(file[f"traj_{index}"], int(file.attrs.get("seed", seed)))
    except (OSError, KeyError) as error:
        raise TrajectoryError(f"{path} holds no readable episode traj_{index} ({error}). Collect it again.") from error


def _fill(group: h5py.Group, episode: Episode) -> None:
    group["actions"] = episode.actions
    for name in ("success", "truncated"):
        group[name] = getattr(episode, name)
    group["terminated"] = episode.success
    for name, flags in episode.stages.items():
        group[f"stages/{name}"] = flags
    for source, values in episode.state.items():
        group[f"obs/{source}"] = values
    group["obs/frame_rendered"] = episode.frame_rendered
    for camera, frames in episode.frames.items():
        chunk = (1, *frames.shape[1:])
        group.create_dataset(f"obs/sensor_data/{camera}/rgb", data=frames, chunks=chunk, compression="gzip")


def _read(group: h5py.Group, seed: int) -> Episode:
    observed = group["obs"]
    state = {f"{part}/{name}": values[()] for part in ("agent", "extra") for name, values in observed[part].items()}
    return Episode(
        seed=seed,
        actions=group["actions"][()],
        state=state,
        frames={camera: data["rgb"][()] for camera, data in observed["sensor_data"].items()},
        frame_rendered=observed["frame_rendered"][()],
        success=group["success"][()],
        stages={name: flags[()] for name, flags in group["stages"].items()} if "stages" in group else {},
        truncated=group["truncated"][()],
    )
