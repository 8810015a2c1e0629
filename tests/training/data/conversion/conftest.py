"""A small recording as ManiSkill writes it."""

import json

import h5py
import numpy as np
import pytest

_SIMULATION = {
    "env_id": "PullCube-v1",
    "prompt": "Pull it",
    "robot_uids": "panda",
    "control_mode": "pd_ee_delta_pose",
    "sim_freq": 100,
    "control_freq": 20,
}


@pytest.fixture
def record(tmp_path):
    """Write `lengths` episodes whose cameras are given as `form` -> frames of (steps + 1) observations."""

    def record(lengths, forms):
        path = tmp_path / "pull.h5"
        draws = np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            for index, steps in enumerate(lengths):
                group = file.create_group(f"traj_{index}")
                group["actions"] = draws.uniform(-1, 1, (steps, 7)).astype(np.float32)
                group["obs/agent/qpos"] = draws.normal(size=(steps + 1, 9)).astype(np.float32)
                for form, frames in forms(steps + 1).items():
                    group[f"obs/sensor_data/base_camera/{form}"] = frames
        episodes = [{"episode_id": index} for index in range(len(lengths))]
        document = {"env_info": {"env_id": "PullCube-v1"}, "episodes": episodes, "simulation": _SIMULATION}
        path.with_suffix(".json").write_text(json.dumps(document))
        return path

    return record
