"""PolicySpec: everything a policy demands of whoever runs it, in one frozen tree.

Written into the checkpoint as `assets/policy_spec.json`, sent by the server on connect, obeyed by the simulator client.
Units are the simulator's own: metres, radians, hertz; images are uint8 RGB. A wire key may be a path into nested maps:
`images/cam_high` finds `{"images/cam_high": …}` and `{"images": {"cam_high": …}}`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json, to_json

__all__ = [
    "ActionSpec",
    "CameraSpec",
    "CheckpointId",
    "Family",
    "ObservationSpec",
    "PolicySection",
    "PolicySpec",
    "PromptSpec",
    "Robot",
    "SimulationSpec",
    "StateField",
    "StateSpec",
]

Family = Literal["pi0", "pi05"]
Robot = Literal["none", "aloha"]
"""Robots whose joints and grippers the model knows in units of its own; `none` for all others."""
_ROBOT_WIDTHS = {"aloha": 14}
"""Dimensions of state and action."""


@dataclass(frozen=True)
class CheckpointId:
    """Where a policy came from: `<experiment>/<run>/<step>`."""

    experiment: str
    run: str
    step: int
    """Number of the step directory; the directory N holds the state after N + 1 updates."""
    run_id: str = ""
    """Drawn when the run began: two runs of one name are two policies. Empty for policies trained elsewhere."""

    def __str__(self) -> str:
        return f"{self.experiment}/{self.run}/{self.step}"


@dataclass(frozen=True)
class PolicySection:
    """The model and its origin."""

    family: Family
    action_horizon: int
    """Steps in one action chunk."""
    execution_horizon: int
    """Steps to run before asking again, unless the client chooses otherwise."""
    denoising_steps: int
    """Euler steps from noise (t = 1) to actions (t = 0)."""
    checkpoint: CheckpointId
    parameter_count: int
    normalization: Literal["quantile", "zscore"]
    dataset_fingerprint: str = ""
    """Content hash of the dataset that it was trained on; empty when unknown."""
    norm_stats_hash: str = ""
    asset_id: str = ""
    """Folder of the norm stats in the checkpoint's assets; empty where there is only one."""
    robot: Robot = "none"
    """Whose state and actions are converted to the model's units before deltas and normalisation, and back."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package versions of the training run."""

    def __post_init__(self) -> None:
        if not 1 <= self.execution_horizon <= self.action_horizon:
            raise ValueError(
                f"execution_horizon {self.execution_horizon} must lie in 1..action_horizon ({self.action_horizon})."
            )
        if self.denoising_steps < 1:
            raise ValueError(f"denoising_steps must be at least 1, not {self.denoising_steps}.")


@dataclass(frozen=True)
class CameraSpec:
    """One image of the observation, (height, width, 3) uint8 RGB; (3, height, width) is taken too."""

    key: str
    """Wire key, such as `observation/image` or `images/cam_high`."""
    slot: str
    """The model's name of the view: `base_0_rgb`, `left_wrist_0_rgb` or `right_wrist_0_rgb`."""
    simulator_camera: str
    """ManiSkill's name of the camera, such as `base_camera`; empty when the policy knows no simulator."""
    height: int
    """Pixels of the training images; the server resizes what it gets."""
    width: int
    required: bool = True
    """An absent camera is an error; else it is black and masked: the model does not look at it."""
    mean: tuple[float, ...] = ()
    """Training mean of each colour channel, 0 to 255; empty when unknown."""
    std: tuple[float, ...] = ()
    all_zero: bool = False
    """Every training image was black: the camera did not exist when the data was recorded."""


@dataclass(frozen=True)
class StateField:
    """A run of consecutive dimensions of the proprioceptive state, and where the simulator has it."""

    name: str
    source: str
    """Key in the simulator's observation, such as `agent/qpos`; empty when the policy knows no simulator."""
    start: int
    """First index taken from the source."""
    stop: int
    """One past the last index taken."""
    key: str = ""
    """Wire key where the field travels as a vector of its own; empty where the whole state is one vector."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"the slice {self.start}:{self.stop} of {self.source!r} is empty or negative.")

    @property
    def width(self) -> int:
        """How many dimensions of the state it is."""
        return self.stop - self.start


@dataclass(frozen=True)
class StateSpec:
    """The proprioceptive state, (state_dim,) float32: the fields one after the other."""

    key: str
    """Wire key of the whole vector; empty when every field has a key of its own."""
    fields: tuple[StateField, ...]
    q01: tuple[float, ...] = ()
    q99: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("q01", "q99", "mean", "std"):
            width = len(getattr(self, name))
            if width not in (0, self.dimension):
                raise ValueError(f"{name} has {width} numbers but the state has {self.dimension} dimensions.")
        own = [part.key for part in self.fields]
        if any(own) if self.key else not all(own) or len(set(own)) < len(own):
            raise ValueError(
                f"the state has either one wire key or one for each field, all different; it has {self.key!r} and "
                f"its fields {', '.join(map(repr, own))}."
            )

    @property
    def dimension(self) -> int:
        """Width of the state vector."""
        return sum(part.width for part in self.fields)

    @property
    def vectors(self) -> tuple[tuple[str, int], ...]:
        """Wire key and width of each vector that makes up the state, in order."""
        if self.key:
            return ((self.key, self.dimension),)
        return tuple((part.key, part.width) for part in self.fields)


@dataclass(frozen=True)
class PromptSpec:
    """The language instruction, one string."""

    key: str
    max_tokens: int
    """Longest prompt in tokens, the discretised state included where it is part of the prompt."""
    includes_state: bool
    """Whether the discretised state is written into the prompt (pi05's default)."""
    trained: tuple[str, ...] = ()
    """The prompts seen in training; empty when unknown."""
    default: str = ""
    """Stands in for the prompt that a request lacks; empty when every request must bring one."""
    tokenizer: str = ""
    """For a checkpoint that brings no tokenizer: `paligemma`, or path or URL of a sentencepiece model."""


@dataclass(frozen=True)
class ObservationSpec:
    """What the policy sees."""

    cameras: tuple[CameraSpec, ...]
    state: StateSpec
    prompt: PromptSpec

    def __post_init__(self) -> None:
        for name in ("key", "slot"):
            values = [getattr(camera, name) for camera in self.cameras]
            if len(set(values)) < len(values):
                raise ValueError(f"two cameras share a {name}: {', '.join(values)}.")


@dataclass(frozen=True)
class ActionSpec:
    """One step of an action chunk, (action_dim,) float in the units of the controller."""

    dimension: int
    names: tuple[str, ...]
    control_mode: str
    """ManiSkill control mode, such as `pd_ee_delta_pose`; empty when the policy knows no simulator."""
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    q01: tuple[float, ...] = ()
    q99: tuple[float, ...] = ()
    delta_mask: tuple[bool, ...] = ()
    """Dimensions that the model predicts relative to the state at the chunk's start; the server adds it back.

    May be shorter than the action: the rest is absolute.
    """

    def __post_init__(self) -> None:
        if len(self.names) != self.dimension:
            raise ValueError(f"{len(self.names)} names were given for {self.dimension} action dimensions.")
        if len(self.delta_mask) > self.dimension:
            raise ValueError(f"delta_mask has {len(self.delta_mask)} entries for {self.dimension} action dimensions.")
        for name in ("low", "high", "q01", "q99"):
            width = len(getattr(self, name))
            if width not in (0, self.dimension):
                raise ValueError(f"{name} has {width} numbers but actions have {self.dimension} dimensions.")


@dataclass(frozen=True)
class SimulationSpec:
    """The simulation that the demonstrations were recorded in: an evaluation must match it."""

    env_ids: tuple[str, ...]
    robot_uids: str
    sim_freq: int
    """Physics steps per second."""
    control_freq: int
    """Actions per second. Part of the meaning of a delta action: at half the rate experts fail."""
    demonstration_length: Mapping[str, float]
    """Quantiles of the demonstrations' length in steps: `q50`, `q95`, `max`."""
    max_episode_steps: int
    """Limit that lets a policy of the demonstrations' speed finish."""
    demonstration_seeds: tuple[int, ...] = ()
    """Reset seeds of the demonstrations: evaluating on one of them measures memory."""
    frame_stride: int = 1
    """Every how many steps the training data holds a rendered frame."""

    def __post_init__(self) -> None:
        if self.control_freq < 1 or self.sim_freq % self.control_freq:
            raise ValueError(f"sim_freq {self.sim_freq} is not a multiple of control_freq {self.control_freq}.")


@dataclass(frozen=True)
class PolicySpec:
    """The whole contract of one policy."""

    policy: PolicySection
    observation: ObservationSpec
    action: ActionSpec
    simulation: SimulationSpec | None = None
    """None for policies that were trained on no simulator of ours."""

    def __post_init__(self) -> None:
        for numbers in (self.observation.state.q01, self.observation.state.q99, self.action.low, self.action.high):
            if not all(map(math.isfinite, numbers)):
                raise ValueError("a bound or quantile is NaN or infinite.")
        self._check_widths()
        if self.simulation is not None and not self.observation.state.key:
            raise ValueError("the simulator's client sends the state as one vector: give observation.state.key.")

    def _check_widths(self) -> None:
        state, action = self.observation.state.dimension, self.action.dimension
        if any(self.action.delta_mask[state:]):
            raise ValueError(f"delta_mask makes a dimension relative that the state, of {state} dimensions, lacks.")
        width = _ROBOT_WIDTHS.get(self.policy.robot)
        if width is not None and (state, action) != (width, width):
            raise ValueError(
                f"the robot {self.policy.robot!r} has {width} dimensions of state and action, not {state} and {action}."
            )

    def to_json(self) -> str:
        """The text of `policy_spec.json`."""
        return json.dumps(to_json(self), indent=2, allow_nan=False) + "\n"

    def to_wire(self) -> dict[str, object]:
        """The map that the server's first frame carries under `policy_spec`."""
        wire: dict[str, object] = to_json(self)
        return wire

    @classmethod
    def from_wire(cls, value: object) -> PolicySpec:
        """Validate a parsed spec.

        Raises:
            SpecInvalid: names the path of the first field that is wrong.
        """
        return from_json(cls, value)

    @classmethod
    def from_json(cls, text: str) -> PolicySpec:
        """Read the text of a `policy_spec.json`. Raises `SpecInvalid`."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise SpecInvalid(f"The policy spec is not JSON: {error}.") from error
        return cls.from_wire(value)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PolicySpec:
        """Read a `policy_spec.json` file. Raises `SpecInvalid` naming the file."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SpecInvalid(f"The policy spec {path} cannot be read: {error.strerror or error}.") from error
        except UnicodeDecodeError as error:
            raise SpecInvalid(f"{path} is no policy spec: it is not text.") from error
        except SpecInvalid as error:
            raise SpecInvalid(f"{path}: {error.message}", field=error.field) from error

    @property
    def hash(self) -> str:
        """Short content hash, written into every episode record; equal specs have equal hashes on both sides."""
        as_received = to_json(PolicySpec.from_wire(self.to_wire()))  # a whole number in a float field becomes a float
        return hashlib.sha256(json.dumps(as_received, sort_keys=True).encode()).hexdigest()[:16]
