"""The policy spec: read from JSON with errors that name the field, the same after a round trip."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from policy_protocol.errors import SpecInvalid
from policy_protocol.spec import (
    ActionSpec,
    CameraSpec,
    CheckpointId,
    ObservationSpec,
    PolicySection,
    PolicySpec,
    PromptSpec,
    SimulationSpec,
    StateField,
    StateSpec,
)

SPEC = PolicySpec(
    PolicySection("pi05", 16, 8, 10, CheckpointId("small", "first", 599), 1000, "quantile", versions={"jax": "0.10.2"}),
    ObservationSpec(
        (CameraSpec("observation/image", "base_0_rgb", "base_camera", 128, 128, mean=(1.0, 2.0, 3.0)),),
        StateSpec("observation/state", (StateField("qpos", "agent/qpos", 0, 8),), q01=(0.0,) * 8, q99=(1.0,) * 8),
        PromptSpec("prompt", 64, True, ("Push a cube.",)),
    ),
    ActionSpec(2, ("x", "gripper"), "pd_ee_delta_pose", (-1.0, -1.0), (1.0, 1.0)),
    SimulationSpec(("PushCube-v1",), "panda_wristcam", 100, 20, {"q50": 70.0}, 105, (1_000_000,)),
)


def changed(path, value):
    """The spec's JSON with one field replaced, or deleted when the value is `...`."""
    tree = copy.deepcopy(SPEC.to_wire())
    *parents, leaf = path
    branch = tree
    for parent in parents:
        branch = branch[parent]
    if value is ...:
        del branch[leaf]
    else:
        branch[leaf] = value
    return json.dumps(tree)


def test_a_spec_survives_json():
    assert PolicySpec.from_json(SPEC.to_json()) == SPEC
    assert PolicySpec.from_json(SPEC.to_json()).hash == SPEC.hash


def test_any_change_changes_the_hash():
    other = dataclasses.replace(SPEC, action=dataclasses.replace(SPEC.action, control_mode="pd_joint_pos"))
    assert other.hash != SPEC.hash


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("policy", "action_horizon"), ..., "The field 'policy.action_horizon' is missing"),
        (("policy", "action_horizon"), "16", "'policy.action_horizon' must be a whole number, not '16'"),
        (("policy", "action_horizon"), True, "'policy.action_horizon' must be a whole number"),
        (("policy", "family"), "pi1", "'policy.family' must be one of 'pi0', 'pi05', not 'pi1'"),
        (("policy", "execution_horizon"), 17, r"execution_horizon 17 must lie in 1..action_horizon \(16\)"),
        (("observation", "cameras", 0, "height"), 1.5, r"'observation.cameras\[0\].height' must be a whole number"),
        (("observation", "cameras"), {}, "'observation.cameras' must be a list"),
        (("observation", "state", "q01"), [0.0], "q01 has 1 numbers but the state has 8 dimensions"),
        (("observation", "state", "fields", 0, "stop"), 0, "the slice 0:0 of 'agent/qpos' is empty or negative"),
        (("action", "names"), ["x"], "1 names were given for 2 action dimensions"),
        (("action", "low"), [float("nan"), 0.0], "NaN or infinite"),
        (("action", "delta_mask"), [True] * 3, "delta_mask has 3 entries for 2 action dimensions"),
        (("policy", "robot"), "aloha", "the robot 'aloha' has 14 dimensions of state and action, not 8 and 2"),
        (("policy", "robot"), "alloha", "'policy.robot' must be one of 'none', 'aloha', not 'alloha'"),
        (("simulation", "control_freq"), 30, "sim_freq 100 is not a multiple of control_freq 30"),
        (("action", "controlmode"), "x", "Unknown field 'action.controlmode'. Did you mean 'control_mode'?"),
        (("policy",), [], "'policy' must be an object"),
    ],
)
def test_a_wrong_field_is_named(path, value, message):
    with pytest.raises(SpecInvalid, match=message):
        PolicySpec.from_json(changed(path, value))


DROID_FIELDS = (
    StateField("joints", "", 0, 7, key="observation/joint_position"),
    StateField("gripper", "", 0, 1, key="observation/gripper_position"),
)


def test_a_state_may_travel_as_one_vector_or_as_one_for_each_field():
    assert SPEC.observation.state.vectors == (("observation/state", 8),)
    droid = StateSpec("", DROID_FIELDS)
    assert droid.dimension == 8
    assert droid.vectors == (("observation/joint_position", 7), ("observation/gripper_position", 1))


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("observation/state", DROID_FIELDS),
        ("", (DROID_FIELDS[0], StateField("gripper", "", 0, 1))),
        ("", (DROID_FIELDS[0], DROID_FIELDS[0])),
        ("", (StateField("gripper", "", 0, 1),)),
    ],
    ids=["both", "one without", "twice the same", "none at all"],
)
def test_a_state_without_clear_wire_keys_is_refused(key, fields):
    with pytest.raises(ValueError, match="^the state has either one wire key or one for each field, all different; "):
        StateSpec(key, fields)


def test_a_relative_action_needs_its_dimension_of_the_state():
    observation = dataclasses.replace(
        SPEC.observation, state=StateSpec("state", (StateField("gripper", "agent/qpos", 7, 8),))
    )
    action = dataclasses.replace(SPEC.action, delta_mask=(True, False))
    assert dataclasses.replace(SPEC, observation=observation, action=action).action.delta_mask == (True, False)
    with pytest.raises(ValueError, match="makes a dimension relative that the state, of 1 dimensions, lacks"):
        dataclasses.replace(
            SPEC, observation=observation, action=dataclasses.replace(SPEC.action, delta_mask=(True, True))
        )


def test_the_simulators_client_needs_the_state_as_one_vector():
    observation = dataclasses.replace(SPEC.observation, state=StateSpec("", DROID_FIELDS))
    with pytest.raises(ValueError, match="give observation.state.key"):
        dataclasses.replace(SPEC, observation=observation)


def test_a_spec_written_before_a_field_was_added_still_loads():
    tree = SPEC.to_wire()
    for part, added in (("policy", ("asset_id", "robot")), ("action", ("delta_mask",))):
        for name in added:
            del tree[part][name]
    del tree["observation"]["state"]["fields"][0]["key"]
    for name in ("default", "tokenizer"):
        del tree["observation"]["prompt"][name]
    assert PolicySpec.from_wire(tree) == SPEC


def test_text_that_is_not_json_is_said_to_be_so():
    with pytest.raises(SpecInvalid, match="not JSON"):
        PolicySpec.from_json("{")


def test_reading_a_file_names_the_file(tmp_path):
    with pytest.raises(SpecInvalid, match="nowhere.json cannot be read"):
        PolicySpec.read(tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(SpecInvalid, match=r"bad\.json: The field 'policy' is missing"):
        PolicySpec.read(tmp_path / "bad.json")
