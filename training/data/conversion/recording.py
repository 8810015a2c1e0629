"""The JSON beside a ManiSkill recording: which episodes it holds and how the simulation was set up.

`sim-client collect` adds a `simulation` object that states every fact. ManiSkill's own recordings lack it; then
`env_info` is asked, and what it does not say must be given by flags: a fact is never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.data.errors import DemonstrationsInvalid

__all__ = ["EpisodeEntry", "GivenFacts", "Recording", "read_recording"]


@dataclass(frozen=True)
class GivenFacts:
    """What the user states on the command line; None where the recording is to be asked."""

    prompt: str | None = None
    """Instruction of every episode; replaces the recorded one."""
    fps: int | None = None
    """Control frequency in hertz."""
    sim_freq: int | None = None
    """Physics frequency in hertz."""
    robot_uids: str | None = None
    control_mode: str | None = None


@dataclass(frozen=True)
class EpisodeEntry:
    """One entry of the JSON's `episodes`."""

    group: str
    """Its HDF5 group, `traj_{episode_id}`."""
    seed: int | None
    """Reset seed; None when it was not recorded."""
    success: bool | None
    """The task's verdict after the last action; None when it was not recorded."""


@dataclass(frozen=True)
class Recording:
    """The facts of one recording."""

    path: Path
    """The HDF5 file."""
    env_id: str
    robot_uids: str
    control_mode: str
    sim_freq: int
    """Physics steps per second."""
    control_freq: int
    """Actions per second."""
    prompt: str
    episodes: tuple[EpisodeEntry, ...]
    action_names: tuple[str, ...] = ()
    """Empty when not recorded."""
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    frame_stride: int = 1
    """Every how many steps a frame was rendered."""
    versions: Mapping[str, str] = field(default_factory=dict)


def read_recording(path: Path, given: GivenFacts) -> Recording:
    """The facts of the recording `path` (the .h5 file; its JSON lies beside it), completed by what is given.

    Raises:
        DemonstrationsInvalid: the file or its JSON is missing or damaged, it lists no episode, a fact is stated
            nowhere (names the flag), or a flag contradicts the recording.
    """
    document = _read_json(path)
    try:
        return _recording(path, document, given)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DemonstrationsInvalid(
            f"{path.with_suffix('.json')} is not the JSON of a ManiSkill recording: {error!r}."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DemonstrationsInvalid(
            f"There is no recording {path}. Record one: sim-client collect --env StackCube-v1 --out {path}"
        )
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        raise DemonstrationsInvalid(
            f"{path} has no {sidecar.name} beside it, which says how it was recorded. Copy it there, or, if the "
            "recording was interrupted, run the same 'sim-client collect' again: it finishes the file."
        )
    try:
        document: dict[str, Any] = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DemonstrationsInvalid(f"{sidecar} is not JSON: {error}. Record the demonstrations again.") from error
    return document


def _recording(path: Path, document: Mapping[str, Any], given: GivenFacts) -> Recording:
    entries = tuple(_entry(entry) for entry in document["episodes"])
    if not entries:
        raise DemonstrationsInvalid(f"{path} holds no episodes. Record some: sim-client collect --out {path}")
    simulation = document.get("simulation", {})
    known = {**_from_env_info(document["env_info"]), **simulation}
    return Recording(
        path=path,
        env_id=known["env_id"],
        robot_uids=_fact(path, "robot_uids", known.get("robot_uids"), given.robot_uids, "--robot-uids"),
        control_mode=_fact(path, "control_mode", known.get("control_mode"), given.control_mode, "--control-mode"),
        sim_freq=_fact(path, "sim_freq", known.get("sim_freq"), given.sim_freq, "--sim-freq"),
        control_freq=_fact(path, "control_freq", known.get("control_freq"), given.fps, "--fps"),
        prompt=given.prompt or _fact(path, "prompt", known.get("prompt"), None, "--prompt"),
        episodes=entries,
        action_names=tuple(simulation.get("action_names", ())),
        action_low=tuple(map(float, simulation.get("action_low", ()))),
        action_high=tuple(map(float, simulation.get("action_high", ()))),
        frame_stride=int(simulation.get("frame_stride", 1)),
        versions=simulation.get("versions", {}),
    )


def _from_env_info(env_info: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that ManiSkill's own recorder happens to know: the arguments that the environment was made with."""
    arguments = env_info.get("env_kwargs", {})
    known = {"env_id": env_info["env_id"], **arguments.get("sim_config", {})}
    return known | {key: arguments.get(key) for key in ("robot_uids", "control_mode")}


def _fact(path: Path, name: str, recorded: Any, given: Any, flag: str) -> Any:
    if recorded is None and given is None:
        raise DemonstrationsInvalid(f"{path} does not say its {name}, and it must not be guessed. Pass {flag}.")
    if recorded is not None and given is not None and recorded != given:
        raise DemonstrationsInvalid(
            f"{path} was recorded with {name} {recorded!r}, but {flag} says {given!r}. Leave {flag} out."
        )
    return recorded if given is None else given


def _entry(entry: Mapping[str, Any]) -> EpisodeEntry:
    success, seed = entry.get("success"), entry.get("episode_seed")
    return EpisodeEntry(
        group=f"traj_{entry['episode_id']}",
        seed=None if seed is None else int(seed),
        success=None if success is None else bool(success),
    )
