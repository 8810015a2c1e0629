"""Recordings in ManiSkill's layout become datasets: rows, frames, facts, norm stats, and the errors on the way."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from policy_protocol.spec import StateField
from training.data import (
    NORM_STATS_FILE,
    Dataset,
    DatasetInvalid,
    DemonstrationsInvalid,
    GivenFacts,
    OutputExists,
    convert,
    fingerprint,
)
from training.data.lerobot.facts import FACTS_FILE
from training.pi05.transforms.normalization import read_norm_stats

LENGTHS = (5, 8, 6)
HEIGHT, WIDTH = 12, 16
ENV_INFO = {"env_id": "StackCube-v1", "env_kwargs": {"obs_mode": "rgb"}, "max_episode_steps": 200}
SIMULATION = {
    "env_id": "StackCube-v1",
    "prompt": "Stack the cube",
    "robot_uids": "panda_wristcam",
    "control_mode": "pd_ee_delta_pose",
    "sim_freq": 100,
    "control_freq": 20,
    "camera_height": HEIGHT,
    "camera_width": WIDTH,
    "cameras": ["base_camera", "hand_camera"],
    "action_names": ["x", "y", "z", "rx", "ry", "rz", "gripper"],
    "action_low": [-1.0] * 7,
    "action_high": [1.0] * 7,
    "state_sources": {"agent/qpos": 9, "extra/tcp_pose": 7},
    "frame_stride": 1,
    "versions": {"mani_skill": "3.0.1"},
}


def write_recording(path, *, lengths=LENGTHS, stride=1, simulation=SIMULATION, env_info=ENV_INFO, success=True):
    """A recording as `sim-client collect` writes it; `simulation=None` is one of ManiSkill's own."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for index, steps in enumerate(lengths):
            write_episode(file.create_group(f"traj_{index}"), random, steps, stride)
    episodes = [
        {"episode_id": index, "episode_seed": 40 + index, "elapsed_steps": steps, "success": success}
        for index, steps in enumerate(lengths)
    ]
    document = {"env_info": env_info, "episodes": episodes}
    if simulation is not None:
        document["simulation"] = {**simulation, "frame_stride": stride}
    Path(path).with_suffix(".json").write_text(json.dumps(document))
    return Path(path)


def write_episode(group, random, steps, stride):
    group["actions"] = random.uniform(-1, 1, (steps, 7)).astype(np.float32)
    group["success"] = np.arange(steps) == steps - 1
    group["obs/agent/qpos"] = random.normal(size=(steps + 1, 9)).astype(np.float32)
    group["obs/extra/tcp_pose"] = random.normal(size=(steps + 1, 7)).astype(np.float32)
    group["obs/extra/goal_pos"] = random.normal(size=(steps + 1, 3)).astype(np.float32)
    shown = np.arange(steps + 1) // stride * stride
    for camera in ("base_camera", "hand_camera"):
        frames = random.integers(0, 256, (steps + 1, HEIGHT, WIDTH, 3), dtype=np.uint8)
        group[f"obs/sensor_data/{camera}/rgb"] = frames[shown]
    group["obs/frame_rendered"] = np.arange(steps + 1) == shown


@pytest.fixture
def recording(tmp_path):
    return write_recording(tmp_path / "stackcube.h5")


def edit(recording, change):
    """Change the HDF5 file in place."""
    with h5py.File(recording, "r+") as file:
        change(file)


def edit_json(recording, change):
    path = recording.with_suffix(".json")
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("format", ["v2.1", "v3.0"])
def test_a_row_holds_the_observation_before_its_action(recording, tmp_path, format):
    convert(recording, tmp_path / "out", format=format)
    dataset = Dataset(tmp_path / "out")
    assert (dataset.metadata.version, dataset.metadata.fps) == (format, 20)
    assert [part.length for part in dataset.episodes] == list(LENGTHS)
    state, actions = dataset.column("state"), dataset.column("actions")
    with h5py.File(recording) as file:
        for index, part in enumerate(dataset.episodes):
            group, steps = file[f"traj_{index}"], part.length
            np.testing.assert_array_equal(state[part.start : part.stop], group["obs/agent/qpos"][:steps, :8])
            np.testing.assert_array_equal(actions[part.start : part.stop], group["actions"])
            for key, camera in (("image", "base_camera"), ("wrist_image", "hand_camera")):
                frames = group[f"obs/sensor_data/{camera}/rgb"][:steps]
                np.testing.assert_array_equal(np.stack(list(dataset.frames(key, index))), frames)


def test_video_keeps_every_row(recording, tmp_path):
    convert(recording, tmp_path / "out", images="video")
    dataset = Dataset(tmp_path / "out")
    assert dataset.features["image"].dtype == "video"
    assert [len(list(dataset.frames("image", index))) for index in range(3)] == list(LENGTHS)


def test_the_facts_say_how_it_was_recorded(recording, tmp_path):
    facts = convert(recording, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert dataset.facts == facts
    assert facts.env_ids == ("StackCube-v1",)
    assert (facts.robot_uids, facts.control_mode) == ("panda_wristcam", "pd_ee_delta_pose")
    assert (facts.sim_freq, facts.control_freq, facts.frame_stride) == (100, 20, 1)
    assert facts.state_fields == (StateField("qpos", "agent/qpos", 0, 8),)
    assert facts.action_names[-1] == "gripper"
    assert facts.action_low == (-1.0,) * 7
    assert facts.prompts == ("Stack the cube",)
    assert facts.demonstration_length == {"q50": 6.0, "q95": pytest.approx(7.8), "max": 8.0}
    assert facts.demonstration_seeds == (40, 41, 42)
    assert facts.versions == {"mani_skill": "3.0.1"}
    base, hand = facts.cameras
    assert (base.key, base.simulator_camera, base.height, base.width) == ("image", "base_camera", HEIGHT, WIDTH)
    assert (hand.key, hand.simulator_camera, hand.all_zero) == ("wrist_image", "hand_camera", False)
    pixels = np.concatenate([frame.reshape(-1, 3) for index in range(3) for frame in dataset.frames("image", index)])
    np.testing.assert_allclose(base.mean, pixels.mean(axis=0))
    np.testing.assert_allclose(base.std, pixels.std(axis=0))


def test_the_stored_fingerprint_is_that_of_the_content(recording, tmp_path):
    facts = convert(recording, tmp_path / "out")
    (tmp_path / "out" / FACTS_FILE).unlink()
    assert fingerprint(Dataset(tmp_path / "out")) == facts.fingerprint
    assert convert(recording, tmp_path / "old", format="v2.1").fingerprint == facts.fingerprint
    assert convert(recording, tmp_path / "video", images="video").fingerprint != facts.fingerprint


def test_norm_stats_come_with_it(recording, tmp_path):
    convert(recording, tmp_path / "out")
    stats = read_norm_stats(tmp_path / "out" / NORM_STATS_FILE)
    assert {key: entry.dimension for key, entry in stats.items()} == {"state": 8, "actions": 7}


def test_a_camera_that_is_always_black_is_recorded_as_such(recording, tmp_path):
    def blacken(file):
        for index in range(3):
            file[f"traj_{index}/obs/sensor_data/hand_camera/rgb"][...] = 0

    edit(recording, blacken)
    assert [camera.all_zero for camera in convert(recording, tmp_path / "out").cameras] == [False, True]


def test_a_frame_stride_marks_the_rows_with_a_frame_of_their_own(tmp_path):
    recording = write_recording(tmp_path / "strided.h5", stride=3)
    facts = convert(recording, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert facts.frame_stride == 3
    assert dataset.features["frame_rendered"].dtype == "bool"
    assert dataset.features["frame_rendered"].shape == (1,)
    expected = np.concatenate([np.arange(steps) % 3 == 0 for steps in LENGTHS])
    np.testing.assert_array_equal(dataset.rendered, expected)


def test_without_a_stride_there_is_no_such_column(recording, tmp_path):
    convert(recording, tmp_path / "out")
    assert "frame_rendered" not in Dataset(tmp_path / "out").features


def test_pickcube_takes_its_hidden_goal_into_the_state(tmp_path):
    simulation = {**SIMULATION, "env_id": "PickCube-v1"}
    facts = convert(write_recording(tmp_path / "pick.h5", simulation=simulation), tmp_path / "out")
    assert facts.state_fields[1] == StateField("goal_pos", "extra/goal_pos", 0, 3)
    feature = Dataset(tmp_path / "out").features["state"]
    assert feature.shape == (11,)
    assert feature.names[6:9] == ("qpos_6", "qpos_7", "goal_pos_0")


def test_the_state_can_be_chosen(recording, tmp_path):
    convert(recording, tmp_path / "out", state=("extra/tcp_pose[:3]", "agent/qpos[7:9]", "extra/goal_pos"))
    state = Dataset(tmp_path / "out").column("state")
    with h5py.File(recording) as file:
        np.testing.assert_array_equal(state[:5, :3], file["traj_0/obs/extra/tcp_pose"][:5, :3])
        np.testing.assert_array_equal(state[:5, 3:5], file["traj_0/obs/agent/qpos"][:5, 7:])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("agent qpos", r"--state 'agent qpos' is not of the form source\[start:stop\], such as agent/qpos\[0:8\]"),
        (
            "agent/qvel",
            r"the recording has no 'agent/qvel'\. It has: agent/qpos \(9\), extra/goal_pos \(3\), extra/tcp",
        ),
        ("agent/qpos[0:10]", r"--state agent/qpos\[0:10\]: 'agent/qpos' has 9 dimensions\."),
        ("agent/qpos[3:3]", r"'agent/qpos' has 9 dimensions\."),
    ],
)
def test_a_state_that_is_not_there_is_explained(recording, tmp_path, state, message):
    with pytest.raises(DemonstrationsInvalid, match=message):
        convert(recording, tmp_path / "out", state=(state,))


def test_several_recordings_follow_each_other(recording, tmp_path):
    other = write_recording(tmp_path / "more.h5", lengths=(4,), simulation={**SIMULATION, "prompt": "Again"})
    facts = convert([recording, other], tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert [part.length for part in dataset.episodes] == [5, 8, 6, 4]
    assert facts.prompts == ("Stack the cube", "Again")
    assert dataset.prompts(np.array([0, 22])) == facts.prompts
    assert facts.demonstration_seeds == (40, 41, 42, 40)


def test_recordings_that_disagree_are_refused(recording, tmp_path):
    other = write_recording(tmp_path / "slow.h5", simulation={**SIMULATION, "control_freq": 10})
    with pytest.raises(
        DemonstrationsInvalid, match=r"has control_freq 20 but .* has 10\. One dataset holds recordings"
    ):
        convert([recording, other], tmp_path / "out")


def test_maniskills_own_recording_converts_once_its_missing_facts_are_given(tmp_path):
    arguments = {"control_mode": "pd_ee_delta_pose", "robot_uids": "panda_wristcam"}
    recording = write_recording(
        tmp_path / "own.h5", simulation=None, env_info={"env_id": "StackCube-v1", "env_kwargs": arguments}
    )
    given = {}
    for name, flag, value in (("sim_freq", "--sim-freq", 100), ("fps", "--fps", 20), ("prompt", "--prompt", "Stack")):
        with pytest.raises(DemonstrationsInvalid, match=rf"does not say its .*must not be guessed\. Pass {flag}\."):
            convert(recording, tmp_path / "out", given=GivenFacts(**given))
        given[name] = value
    facts = convert(recording, tmp_path / "out", given=GivenFacts(**given))
    assert (facts.control_freq, facts.sim_freq, facts.prompts) == (20, 100, ("Stack",))
    assert facts.action_names[:2] == ("action_0", "action_1")
    assert (facts.action_low, facts.versions) == ((), {})


def test_maniskills_own_recording_tells_its_frequencies_when_the_environment_was_made_with_them(tmp_path):
    arguments = {"control_mode": "m", "robot_uids": "r", "sim_config": {"sim_freq": 500, "control_freq": 10}}
    recording = write_recording(
        tmp_path / "own.h5", simulation=None, env_info={"env_id": "StackCube-v1", "env_kwargs": arguments}
    )
    facts = convert(recording, tmp_path / "out", given=GivenFacts(prompt="Stack"))
    assert (facts.control_freq, facts.sim_freq) == (10, 500)


def test_a_flag_may_replace_the_prompt_but_not_contradict_a_fact(recording, tmp_path):
    assert convert(recording, tmp_path / "out", given=GivenFacts(prompt="Put it")).prompts == ("Put it",)
    with pytest.raises(DemonstrationsInvalid, match=r"was recorded with control_freq 20, but --fps says 10\. Leave"):
        convert(recording, tmp_path / "other", given=GivenFacts(fps=10))


def test_failures_are_left_out_unless_asked_for(recording, tmp_path):
    edit_json(recording, lambda document: document["episodes"][1].update(success=False))
    assert convert(recording, tmp_path / "out").demonstration_seeds == (40, 42)
    facts = convert(recording, tmp_path / "out", include_failures=True, overwrite=True)
    assert facts.demonstration_seeds == (40, 41, 42)
    failed = write_recording(tmp_path / "failed.h5", success=False)
    with pytest.raises(DemonstrationsInvalid, match=r"No episode of .* reached the goal\. Pass --include-failures"):
        convert(failed, tmp_path / "none")


def wait_at_the_start(steps):
    """The gripper closes in the first step, then the robot waits until so many are over."""

    def change(file):
        for index in range(len(LENGTHS)):
            qpos, hand = (file[f"traj_{index}/obs/{source}"] for source in ("agent/qpos", "extra/tcp_pose"))
            qpos[:, :] = np.maximum(0, np.arange(len(qpos)) - steps)[:, None] * 0.1
            hand[:, :] = qpos[:, :7]
            qpos[0, 7:] = 0.04

    return change


def test_idle_steps_at_the_start_are_left_out_when_asked_for(recording, tmp_path):
    edit(recording, wait_at_the_start(3))
    assert convert(recording, tmp_path / "whole").idle_steps_left_out == 0
    facts = convert(recording, tmp_path / "out", drop_idle_start=True)
    assert facts.idle_steps_left_out == 2 * len(LENGTHS)
    assert facts.demonstration_length["max"] == max(LENGTHS) - 2
    whole, dataset = Dataset(tmp_path / "whole"), Dataset(tmp_path / "out")
    assert [part.length for part in dataset.episodes] == [steps - 2 for steps in LENGTHS]
    for part, before in zip(dataset.episodes, whole.episodes, strict=True):
        kept = [0, *range(3, before.length)]
        for column in ("state", "actions"):
            ours, all_of_them = dataset.column(column), whole.column(column)
            np.testing.assert_array_equal(ours[part.start : part.stop], all_of_them[before.start : before.stop][kept])
        frames = [list(data.frames("wrist_image", part.index)) for data in (dataset, whole)]
        np.testing.assert_array_equal(frames[0], np.stack(frames[1])[kept])
        np.testing.assert_allclose(
            dataset.column("timestamp")[part.start : part.stop].ravel(), np.arange(part.length) / 20, atol=1e-6
        )


def test_an_idle_row_may_take_the_frame_with_it_that_later_rows_repeat(tmp_path):
    """They are no rows at which a sample begins, as before."""
    recording = write_recording(tmp_path / "strided.h5", stride=2)
    edit(recording, wait_at_the_start(3))
    facts = convert(recording, tmp_path / "out", drop_idle_start=True)
    assert facts.frame_stride == 2
    expected = np.concatenate([(np.arange(steps) % 2 == 0)[[0, *range(3, steps)]] for steps in LENGTHS])
    np.testing.assert_array_equal(Dataset(tmp_path / "out").rendered, expected)


def test_without_the_robots_motion_nobody_can_tell_what_is_idle(recording, tmp_path):
    edit(recording, lambda file: [file.__delitem__(f"traj_{index}/obs/extra/tcp_pose") for index in range(3)])
    with pytest.raises(DemonstrationsInvalid) as error:
        convert(recording, tmp_path / "out", drop_idle_start=True)
    assert error.value.message == (
        f"{recording} has no 'extra/tcp_pose', so nothing says when the robot begins to move. "
        "Leave out --drop-idle-start."
    )


def test_an_existing_output_needs_overwrite(recording, tmp_path):
    convert(recording, tmp_path / "out")
    with pytest.raises(OutputExists, match=r"out exists already\. Pass --overwrite to replace it"):
        convert(recording, tmp_path / "out")
    convert(recording, tmp_path / "out", format="v2.1", overwrite=True)
    assert Dataset(tmp_path / "out").metadata.version == "v2.1"


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(DemonstrationsInvalid, match=r"There is no recording .*no\.h5\. Record one: sim-client collect"):
        convert(tmp_path / "no.h5", tmp_path / "out")


def test_a_missing_or_damaged_json_is_named(recording, tmp_path):
    sidecar = recording.with_suffix(".json")
    sidecar.write_text("{")
    with pytest.raises(DemonstrationsInvalid, match=r"stackcube\.json is not JSON"):
        convert(recording, tmp_path / "out")
    sidecar.write_text("{}")
    with pytest.raises(DemonstrationsInvalid, match=r"stackcube\.json is not the JSON of a ManiSkill recording"):
        convert(recording, tmp_path / "out")
    sidecar.unlink()
    with pytest.raises(
        DemonstrationsInvalid, match=r"has no stackcube\.json beside it, which says how it was recorded"
    ):
        convert(recording, tmp_path / "out")


def test_a_recording_without_episodes_is_refused(tmp_path):
    with pytest.raises(DemonstrationsInvalid, match=r"holds no episodes\. Record some: sim-client collect"):
        convert(write_recording(tmp_path / "empty.h5", lengths=()), tmp_path / "out")


def test_a_file_that_is_not_hdf5_is_named(recording, tmp_path):
    recording.write_bytes(b"nothing")
    with pytest.raises(DemonstrationsInvalid, match=r"stackcube\.h5 is not a readable HDF5 file"):
        convert(recording, tmp_path / "out")


def delete(name):
    return lambda file: file.__delitem__(name)


def cut(name):
    def change(file):
        rows = file[name][:-1]
        del file[name]
        file[name] = rows

    return change


def as_integers(file):
    name = "traj_0/obs/sensor_data/base_camera/rgb"
    frames = file[name][()].astype(np.int32)
    del file[name]
    file[name] = frames


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (delete("traj_1"), "has no traj_1, which its JSON lists: the two do not belong together"),
        (delete("traj_0/obs"), r"stackcube\.h5:/traj_0 has no 'obs'\. Record with observations: sim-client collect"),
        (
            delete("traj_0/obs/sensor_data"),
            r"stackcube\.h5:/traj_0 has no camera frames \(obs/sensor_data/<camera>/rgb or Color\)",
        ),
        (
            delete("traj_1/obs/sensor_data/hand_camera"),
            r"/traj_1 has no 'obs/sensor_data/hand_camera/rgb', which other",
        ),
        (cut("traj_1/obs/agent/qpos"), r"/traj_1/obs/agent/qpos has 8 rows for 8 actions; expected 9, one before each"),
        (cut("traj_2/obs/sensor_data/base_camera/rgb"), r"base_camera/rgb has 6 rows for 6 actions; expected 7"),
        (as_integers, r"base_camera/rgb has the dtype int32 and shape \(6, 12, 16, 3\); expected uint8, or floats"),
        (
            lambda file: file["traj_1/obs/frame_rendered"].write_direct(np.zeros(9, dtype=bool)),
            r"/traj_1 begins without a rendered frame",
        ),
    ],
)
def test_a_damaged_recording_is_named_with_the_part_and_leaves_no_dataset(recording, tmp_path, change, message):
    edit(recording, change)
    with pytest.raises(DemonstrationsInvalid, match=message):
        convert(recording, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stackcube.h5", "stackcube.json"]


def test_action_names_of_another_width_are_refused(recording, tmp_path):
    edit_json(recording, lambda document: document["simulation"].update(action_names=["x", "y"]))
    with pytest.raises(DemonstrationsInvalid, match="has actions of 7 dimensions, but the JSON lists 2 action_names"):
        convert(recording, tmp_path / "out")


def test_damaged_facts_are_named(recording, tmp_path):
    convert(recording, tmp_path / "out")
    (tmp_path / "out" / FACTS_FILE).write_text('{"env_ids": 3}')
    with pytest.raises(
        DatasetInvalid, match=r"chunkwire\.json is damaged: .*'env_ids'.* Convert the demonstrations again"
    ):
        Dataset(tmp_path / "out")
