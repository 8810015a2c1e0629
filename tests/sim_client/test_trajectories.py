"""Trajectory files: ManiSkill's layout, written at once, described by the JSON beside them."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from sim_client.collect.trajectories import Episode, merge_episodes, read_episode, split_episode, write_episode
from sim_client.collect.trajectory_facts import (
    EpisodeFacts,
    SimulationFacts,
    TrajectoryFacts,
    facts_path,
    read_facts,
    write_facts,
)
from sim_client.errors import TrajectoryError

STEPS = 5


def make_episode(seed: int) -> Episode:
    random = np.random.default_rng(seed)
    rows = STEPS + 1
    return Episode(
        seed=seed,
        actions=random.uniform(-1, 1, (STEPS, 7)).astype(np.float32),
        state={
            "agent/qpos": random.normal(size=(rows, 9)).astype(np.float32),
            "agent/qvel": random.normal(size=(rows, 9)).astype(np.float32),
            "extra/tcp_pose": random.normal(size=(rows, 7)).astype(np.float32),
        },
        frames={
            "base_camera": random.integers(0, 256, (rows, 8, 12, 3), np.uint8),
            "hand_camera": random.integers(0, 256, (rows, 8, 12, 3), np.uint8),
        },
        frame_rendered=np.array([True, False, True, False, True, False]),
        success=np.array([False, False, False, True, True]),
        stages={"is_cubeA_grasped": np.array([False, True, True, False, False])},
        truncated=np.zeros(STEPS, bool),
    )


def make_facts(*seeds: int) -> TrajectoryFacts:
    simulation = SimulationFacts(
        env_id="StackCube-v1",
        prompt="Stack.",
        robot_uids="panda_wristcam",
        control_mode="pd_ee_delta_pose",
        sim_freq=100,
        control_freq=20,
        camera_height=8,
        camera_width=12,
        cameras=("base_camera", "hand_camera"),
        action_names=("delta_x",),
        action_low=(-1.0,),
        action_high=(1.0,),
        state_sources={"agent/qpos": 9, "agent/qvel": 9, "extra/tcp_pose": 7},
        frame_stride=2,
        max_episode_steps=300,
        base_seed=3,
        attempted_seeds=(3, 4, 5),
        failed_seeds={"4": "the motion planner found no path"},
        versions={"mani_skill": "3.0.1"},
    )
    episodes = (EpisodeFacts(i, seed, "pd_ee_delta_pose", STEPS, True) for i, seed in enumerate(seeds))
    return TrajectoryFacts(simulation, tuple(episodes))


def assert_same(left: Episode, right: Episode) -> None:
    assert left.seed == right.seed
    for name in ("actions", "frame_rendered", "success", "truncated"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    for name in ("state", "frames", "stages"):
        ours, theirs = getattr(left, name), getattr(right, name)
        assert ours.keys() == theirs.keys()
        for key, values in ours.items():
            assert np.array_equal(values, theirs[key]), key
            assert values.dtype == theirs[key].dtype, key


def test_an_episode_is_read_back_exactly(tmp_path: Path) -> None:
    write_episode(tmp_path / "seed_3.h5", make_episode(3))
    assert_same(read_episode(tmp_path / "seed_3.h5"), make_episode(3))


def test_merging_numbers_the_episodes_in_the_order_given(tmp_path: Path) -> None:
    parts = [tmp_path / f"seed_{seed}.h5" for seed in (5, 3)]
    for part, seed in zip(parts, (5, 3), strict=True):
        write_episode(part, make_episode(seed))
    assert merge_episodes(parts, tmp_path / "all.h5") == (STEPS, STEPS)
    assert_same(read_episode(tmp_path / "all.h5", 0, seed=5), make_episode(5))
    assert_same(read_episode(tmp_path / "all.h5", 1, seed=3), make_episode(3))


def test_a_merged_episode_can_be_split_off_again(tmp_path: Path) -> None:
    write_episode(tmp_path / "seed_3.h5", make_episode(3))
    merge_episodes([tmp_path / "seed_3.h5"], tmp_path / "all.h5")
    split_episode(tmp_path / "all.h5", 0, 3, tmp_path / "again.h5")
    assert_same(read_episode(tmp_path / "again.h5"), make_episode(3))


def test_the_layout_is_maniskills(tmp_path: Path) -> None:
    write_episode(tmp_path / "one.h5", make_episode(0))
    with h5py.File(tmp_path / "one.h5") as file:
        episode = file["traj_0"]
        shapes = {name: (episode[name].shape, str(episode[name].dtype)) for name in ("actions", "success")}
        assert shapes == {"actions": ((STEPS, 7), "float32"), "success": ((STEPS,), "bool")}
        assert episode["obs/agent/qpos"].shape == (STEPS + 1, 9)
        assert episode["obs/extra/tcp_pose"].shape == (STEPS + 1, 7)
        assert episode["obs/sensor_data/base_camera/rgb"].shape == (STEPS + 1, 8, 12, 3)
        assert episode["obs/frame_rendered"][()].tolist() == [True, False] * 3
        assert np.array_equal(episode["terminated"], episode["success"])


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "seed_3.h5"
    write_episode(path, make_episode(3))
    broken = replace(make_episode(4), frames={"base_camera": np.array([{}, {}], object)})
    with pytest.raises((TypeError, ValueError)):
        write_episode(path, broken)
    assert_same(read_episode(path), make_episode(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["seed_3.h5"]


def test_a_damaged_or_missing_file_says_to_collect_again(tmp_path: Path) -> None:
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n and then nothing")
    write_episode(tmp_path / "one.h5", make_episode(0))
    for name, index in (("damaged.h5", 0), ("missing.h5", 0), ("one.h5", 7)):
        with pytest.raises(
            TrajectoryError, match=rf"{name} holds no readable episode traj_{index} .* Collect it again"
        ):
            read_episode(tmp_path / name, index)


def test_the_facts_are_read_back_exactly(tmp_path: Path) -> None:
    write_facts(tmp_path / "demos.h5", make_facts(3, 5))
    assert read_facts(tmp_path / "demos.h5") == make_facts(3, 5)


def test_the_json_lets_gymnasium_make_the_environment_and_reset_it(tmp_path: Path) -> None:
    """The fields that ManiSkill's own `replay_trajectory` reads."""
    write_facts(tmp_path / "demos.h5", make_facts(3, 5))
    document = json.loads((tmp_path / "demos.json").read_text())
    info = document["env_info"]
    assert info["env_id"] == "StackCube-v1"
    assert info["max_episode_steps"] == 300
    assert info["env_kwargs"]["control_mode"] == "pd_ee_delta_pose"
    assert info["env_kwargs"]["sim_config"] == {"sim_freq": 100, "control_freq": 20}
    assert document["source_type"] == "motionplanning"
    assert document["episodes"][1] == {
        "episode_id": 1,
        "episode_seed": 5,
        "control_mode": "pd_ee_delta_pose",
        "elapsed_steps": STEPS,
        "success": True,
        "reset_kwargs": {"seed": 5, "options": {"reconfigure": True}},
    }


@pytest.mark.parametrize("text", [None, "{", "[]", '{"episodes": []}', '{"episodes": [], "simulation": {}}'])
def test_a_json_that_is_not_ours_says_so(tmp_path: Path, text: str | None) -> None:
    path = facts_path(tmp_path / "demos.h5")
    if text is not None:
        path.write_text(text)
    with pytest.raises(
        TrajectoryError, match=r"demos\.json does not describe .* Collect them with `sim-client collect`"
    ):
        read_facts(tmp_path / "demos.h5")
