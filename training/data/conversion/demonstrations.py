"""Reads ManiSkill's HDF5 recordings, one episode in memory at a time.

traj_{i}/actions                       (steps, action_dim)
traj_{i}/obs/agent/…, obs/extra/…      (steps + 1, dim): what the robot sensed before each action, and after the last
traj_{i}/obs/sensor_data/<camera>/…    frames, see `camera_frames`
traj_{i}/obs/frame_rendered            (steps + 1,) bool; absent when every frame was rendered
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from policy_protocol.spec import StateField
from training.data.conversion.camera_frames import FRAME_NAMES, check_frames, read_frames
from training.data.conversion.idle_start import HAND, JOINTS, idle_start
from training.data.conversion.recording import EpisodeEntry, GivenFacts, Recording, read_recording
from training.data.errors import DemonstrationsInvalid

__all__ = ["Demonstration", "Demonstrations"]


@dataclass(frozen=True)
class Demonstration:
    """One episode: row t is the observation before action t. The observation after the last action is left out."""

    state: Float32[np.ndarray, "steps state_dim"]
    actions: Float32[np.ndarray, "steps action_dim"]
    frames: Mapping[str, UInt8[np.ndarray, "steps height width 3"]]
    """By ManiSkill's name of the camera."""
    frame_rendered: Bool[np.ndarray, "steps"]
    """False where the frame repeats the one before."""


class Demonstrations:
    """An open recording; use as a context manager.

    Args:
        path: the .h5 file; its .json lies beside it.
        given: facts that the recording does not state.

    Raises:
        DemonstrationsInvalid: the recording is missing, damaged, empty, without cameras or without a needed fact.
    """

    def __init__(self, path: Path, given: GivenFacts | None = None) -> None:
        self.recording: Recording = read_recording(path, given or GivenFacts())
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise DemonstrationsInvalid(f"{path} is not a readable HDF5 file: {error}. Record it again.") from error
        try:
            first = self._group(self.recording.episodes[0])
            self.cameras: tuple[str, ...] = self._find_cameras(first)
            """ManiSkill's names of the cameras."""
            self.widths: Mapping[str, int] = _find_sources(first)
            """Dimensions of each source of proprioceptive state."""
            self.action_dim: int = self._action_dim(first)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Demonstrations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def strided(self) -> bool:
        """Whether some frame repeats the one before."""
        flags = (self._group(entry).get("obs/frame_rendered") for entry in self.recording.episodes)
        return any(flag is not None and not np.all(flag[:-1]) for flag in flags)

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) of a camera's frames in pixels."""
        height, width = self._frames(self._group(self.recording.episodes[0]), camera).shape[1:3]
        return int(height), int(width)

    def steps(self, entry: EpisodeEntry) -> int:
        """Actions of an episode."""
        return len(self._group(entry)["actions"])

    def read(
        self, entry: EpisodeEntry, fields: Sequence[StateField], *, drop_idle_start: bool = False
    ) -> Demonstration:
        """Read one episode; with `drop_idle_start` without the steps of `idle_start`.

        Raises:
            DemonstrationsInvalid: a part is missing or damaged, or its length disagrees with the actions; names
                the file and the part.
        """
        group = self._group(entry)
        steps = len(group["actions"])
        if steps == 0:
            raise DemonstrationsInvalid(f"{self._name(group)} holds no actions. Record it again.")
        kept = np.arange(steps)
        if drop_idle_start:
            kept = np.flatnonzero(~idle_start(self._rows(group, f"obs/{JOINTS}"), self._rows(group, f"obs/{HAND}")))
        state = [self._rows(group, f"obs/{part.source}")[:steps] for part in fields]
        slices = [
            values.reshape(steps, -1)[:, part.start : part.stop] for values, part in zip(state, fields, strict=True)
        ]
        rendered = self._rows(group, "obs/frame_rendered") if "obs/frame_rendered" in group else np.ones(steps)
        if not rendered[0]:
            raise DemonstrationsInvalid(f"{self._name(group)} begins without a rendered frame. Record it again.")
        return Demonstration(
            state=np.concatenate(slices, axis=1, dtype=np.float32)[kept],
            actions=np.asarray(group["actions"], dtype=np.float32)[kept],
            frames={name: self._read_frames(group, name, steps)[kept] for name in self.cameras},
            frame_rendered=rendered.astype(bool)[kept],
        )

    def successes(self) -> Iterator[EpisodeEntry]:
        """The episodes that reached the goal, or of which nobody says whether they did."""
        return (entry for entry in self.recording.episodes if entry.success is not False)

    def _group(self, entry: EpisodeEntry) -> h5py.Group:
        if entry.group not in self._file:
            raise DemonstrationsInvalid(
                f"{self.recording.path} has no {entry.group}, which its JSON lists: the two do not belong together. "
                "Record the demonstrations again."
            )
        group = self._file[entry.group]
        for part in ("actions", "obs"):
            if part not in group:
                raise DemonstrationsInvalid(
                    f"{self._name(group)} has no {part!r}. Record with observations: sim-client collect, or "
                    "ManiSkill's replay_trajectory with '-o rgb --save-traj'."
                )
        return group

    def _action_dim(self, group: h5py.Group) -> int:
        width = int(group["actions"].shape[-1])
        for name in ("action_names", "action_low", "action_high"):
            if len(getattr(self.recording, name)) not in (0, width):
                raise DemonstrationsInvalid(
                    f"{self._name(group)} has actions of {width} dimensions, but the JSON lists "
                    f"{len(getattr(self.recording, name))} {name}: the two do not belong together."
                )
        return width

    def _find_cameras(self, group: h5py.Group) -> tuple[str, ...]:
        cameras = group.get("obs/sensor_data", {})
        names = tuple(name for name in cameras if any(form in cameras[name] for form in FRAME_NAMES))
        if not names:
            raise DemonstrationsInvalid(
                f"{self._name(group)} has no camera frames (obs/sensor_data/<camera>/rgb or Color). Record with "
                "cameras: sim-client collect, or ManiSkill's replay_trajectory with '-o rgb --save-traj'."
            )
        # A base camera comes before a hand camera, and both before any other.
        return tuple(sorted(names, key=lambda name: (name != "base_camera", name != "hand_camera", name)))

    def _frames(self, group: h5py.Group, camera: str) -> h5py.Dataset:
        names = [f"obs/sensor_data/{camera}/{form}" for form in FRAME_NAMES]
        name = next((name for name in names if name in group), None)
        if name is None:
            raise DemonstrationsInvalid(f"{self._name(group)} has no {names[0]!r}, which other episodes have.")
        check_frames(group[name], f"{self._name(group)}/{name}")
        return group[name]

    def _read_frames(self, group: h5py.Group, camera: str, steps: int) -> UInt8[np.ndarray, "steps height width 3"]:
        frames = self._frames(group, camera)
        name = f"{self.recording.path}:{frames.name}"
        self._check_length(frames, steps, name)
        try:
            return read_frames(frames, steps, name)
        except OSError as error:
            raise DemonstrationsInvalid(f"{name} is damaged: {error}. Record it again.") from error

    def _rows(self, group: h5py.Group, name: str) -> np.ndarray:
        """The rows before each action and after the last."""
        if name not in group:
            raise DemonstrationsInvalid(f"{self._name(group)} has no {name!r}, which other episodes have.")
        self._check_length(group[name], len(group["actions"]), f"{self._name(group)}/{name}")
        try:
            return np.asarray(group[name])
        except OSError as error:
            raise DemonstrationsInvalid(f"{self._name(group)}/{name} is damaged: {error}. Record it again.") from error

    def _check_length(self, data: h5py.Dataset, steps: int, name: str) -> None:
        if len(data) != steps + 1:
            raise DemonstrationsInvalid(
                f"{name} has {len(data)} rows for {steps} actions; expected {steps + 1}, one before each action and "
                "one after the last. Record it again."
            )

    def _name(self, group: h5py.Group) -> str:
        return f"{self.recording.path}:{group.name}"


def _find_sources(group: h5py.Group) -> dict[str, int]:
    """Every array of numbers under obs/agent and obs/extra, with its width."""
    widths: dict[str, int] = {}

    def visit(prefix: str, node: h5py.Group) -> None:
        for name, item in node.items():
            if isinstance(item, h5py.Group):
                visit(f"{prefix}/{name}", item)
            elif item.ndim <= 2:
                widths[f"{prefix}/{name}"] = 1 if item.ndim == 1 else item.shape[1]

    for part in ("agent", "extra"):
        if part in group["obs"]:
            visit(part, group["obs"][part])
    return widths
