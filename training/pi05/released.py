"""openpi's released policies by name: what their checkpoints, which hold no policy spec, expect and give.

Each is the inference half of the openpi config of that name, with the replanning of openpi's example client for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from policy_protocol.errors import SpecInvalid, did_you_mean
from policy_protocol.spec import (
    ActionSpec,
    CameraSpec,
    CheckpointId,
    Family,
    ObservationSpec,
    PolicySection,
    PolicySpec,
    PromptSpec,
    Robot,
    StateField,
    StateSpec,
)
from training.pi05.model.config import SLOTS

__all__ = ["RELEASED", "ReleasedPolicy", "find_spec", "released_policy"]

_BASE, _LEFT_WRIST, _RIGHT_WRIST = SLOTS
_PARAMETERS: Mapping[Family, int] = {"pi0": 3_238_048_528, "pi05": 3_353_433_872}
_MAX_TOKENS: Mapping[Family, int] = {"pi0": 48, "pi05": 200}


@dataclass(frozen=True)
class ReleasedPolicy:
    """A policy that openpi publishes."""

    spec: PolicySpec
    checkpoint: str
    """Address of the step directory."""


@dataclass(frozen=True)
class _Embodiment:
    """What all policies of one robot and data set share."""

    asset_id: str
    execution_horizon: int
    cameras: tuple[CameraSpec, ...]
    state: StateSpec
    action_names: tuple[str, ...]
    robot: Robot = "none"
    default_prompt: str = ""
    """The only one of its training."""


_LIBERO = _Embodiment(
    asset_id="physical-intelligence/libero",
    execution_horizon=5,
    cameras=(
        CameraSpec("observation/image", _BASE, "", 256, 256),
        CameraSpec("observation/wrist_image", _LEFT_WRIST, "", 256, 256),
    ),
    state=StateSpec(
        "observation/state",
        (
            StateField("end-effector position", "", 0, 3),
            StateField("end-effector axis-angle", "", 3, 6),
            StateField("fingers", "", 6, 8),
        ),
    ),
    action_names=("x", "y", "z", "rx", "ry", "rz", "gripper"),
)
_DROID = _Embodiment(
    asset_id="droid",
    execution_horizon=8,
    cameras=(
        CameraSpec("observation/exterior_image_1_left", _BASE, "", 180, 320),
        CameraSpec("observation/wrist_image_left", _LEFT_WRIST, "", 180, 320),
    ),
    state=StateSpec(
        "",
        (
            StateField("joint position", "", 0, 7, key="observation/joint_position"),
            StateField("gripper position", "", 0, 1, key="observation/gripper_position"),
        ),
    ),
    action_names=(*(f"joint_velocity_{joint}" for joint in range(7)), "gripper_position"),
)
_ALOHA_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_ALOHA_SIM = _Embodiment(
    asset_id="lerobot/aloha_sim_transfer_cube_human",
    execution_horizon=10,
    cameras=(
        CameraSpec("images/cam_high", _BASE, "", 480, 640),
        CameraSpec("images/cam_left_wrist", _LEFT_WRIST, "", 480, 640, required=False),
        CameraSpec("images/cam_right_wrist", _RIGHT_WRIST, "", 480, 640, required=False),
    ),
    state=StateSpec("state", (StateField("left arm", "", 0, 7), StateField("right arm", "", 7, 14))),
    action_names=tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _ALOHA_JOINTS),
    robot="aloha",
    default_prompt="Transfer cube",
)


def _released(
    name: str,
    embodiment: _Embodiment,
    action_horizon: int,
    *,
    includes_state: bool = False,
    delta_mask: tuple[bool, ...] = (),
) -> ReleasedPolicy:
    family: Family = "pi05" if name.startswith("pi05") else "pi0"
    policy = PolicySection(
        family=family,
        action_horizon=action_horizon,
        execution_horizon=embodiment.execution_horizon,
        denoising_steps=10,
        checkpoint=CheckpointId(name, "openpi", 0),
        parameter_count=_PARAMETERS[family],
        normalization="quantile" if family == "pi05" else "zscore",
        asset_id=embodiment.asset_id,
        robot=embodiment.robot,
    )
    prompt = PromptSpec(
        key="prompt",
        max_tokens=_MAX_TOKENS[family],
        includes_state=includes_state,
        trained=(embodiment.default_prompt,) if embodiment.default_prompt else (),
        default=embodiment.default_prompt,
        tokenizer="paligemma",
    )
    names = embodiment.action_names
    return ReleasedPolicy(
        PolicySpec(
            policy,
            ObservationSpec(embodiment.cameras, embodiment.state, prompt),
            ActionSpec(len(names), names, "", delta_mask=delta_mask),
        ),
        checkpoint=f"gs://openpi-assets/checkpoints/{name}",
    )


RELEASED: Mapping[str, ReleasedPolicy] = {
    released.spec.policy.checkpoint.experiment: released
    for released in (
        _released("pi05_libero", _LIBERO, 10),
        _released("pi05_droid", _DROID, 15, includes_state=True),
        # LIBERO's actions are deltas already, but this one was trained with a second subtraction.
        _released("pi0_libero", _LIBERO, 50, delta_mask=(True,) * 6 + (False,)),
        _released("pi0_droid", _DROID, 10),
        _released("pi0_aloha_sim", _ALOHA_SIM, 50),
    )
}
"""By openpi's name of the config."""


def released_policy(name: str) -> ReleasedPolicy:
    """The released policy of that name. Raises `SpecInvalid` with the names that there are."""
    if name not in RELEASED:
        raise SpecInvalid(
            f"There is no policy spec {name!r}, neither built in nor as a file.{did_you_mean(name, RELEASED)} "
            f"Built in: {', '.join(RELEASED)}. --spec takes one of these names or a policy_spec.json."
        )
    return RELEASED[name]


def find_spec(source: PolicySpec | str | os.PathLike[str]) -> PolicySpec:
    """A spec by the name of a released policy or from a file; a spec is itself.

    Raises:
        SpecInvalid: it is neither, or the file is no spec.
    """
    if isinstance(source, PolicySpec):
        return source
    name = os.fspath(source)
    looks_like_a_file = Path(name).exists() or os.sep in name or Path(name).suffix
    if name not in RELEASED and looks_like_a_file:
        return PolicySpec.read(name)
    return released_policy(name).spec
